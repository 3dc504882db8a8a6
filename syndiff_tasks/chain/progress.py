"""How far a task is: a bar in a terminal, log lines elsewhere, and reports to the scheduler."""

import logging
import sys

from tqdm import tqdm

logger = logging.getLogger("luigi-interface")


class Progress:
    """Reports how far a task is: a bar in a terminal, log lines elsewhere, and the reports to the scheduler.

    Parameters
    ----------
    total : int
        Steps of the task.
    unit : str
        What a step is.
    title : str
        What the bar is called.
    report_percentage, report_message : callable
        Take an int 0..100 and a text, for luigid's web view.
    """

    def __init__(self, total, unit, title, report_percentage, report_message):
        self.total, self.unit, self.title, self.done = total, unit, title, 0
        self.report_percentage, self.report_message = report_percentage, report_message
        self.percentage = 0
        self.bar = tqdm(total=total, unit=unit, desc=title.partition("(")[0]) if sys.stderr.isatty() else None

    def step(self, message):
        """Count one step as done, and say what it was."""
        self.done += 1
        percentage = 100 * self.done // self.total
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix_str(message)
            if self.done == self.total:
                self.bar.close()
        # Requests to luigid cost milliseconds: one a percent, not one a step.
        if percentage > self.percentage:
            self.report_percentage(percentage)
            self.report_message(f"{self.done} of {self.total} {self.unit}s: {message}")
            if self.bar is None and (percentage // 10 > self.percentage // 10):
                logger.info("%s: %d %%, %d of %d %ss", self.title, percentage, self.done, self.total, self.unit)
            self.percentage = percentage
