"""The report on a sector: what was made of each CCD, as a table and as a page."""

import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd


class Planned(NamedTuple):
    """What is to be made of a CCD: its state, number of FFIs, reference, the task (or none) and why."""

    state: str
    ffis: int
    reference: str
    task: object | None
    why: str


def report(plans):
    """Return what was made of each CCD.

    Parameters
    ----------
    plans : dict of CCD to Planned
        The tasks of which are complete.

    Returns
    -------
    table : pandas.DataFrame
        A row a CCD: camera, ccd, state (made, no PS1 coverage, target elsewhere, no FFI, no good FFI), ffis,
        reference, skycells, templates, bytes (of these), folder and why (of the choice, or of there being nothing).
    """
    return pd.DataFrame([_report_row(ccd, planned) for ccd, planned in plans.items()])


def _report_row(ccd, planned):
    made = [Path(template.path) for template, *_ in planned.task.templates().values()] if planned.task else []
    return {
        "camera": ccd.camera,
        "ccd": ccd.ccd,
        "state": planned.state,
        "ffis": planned.ffis,
        "reference": planned.reference,
        "skycells": len(planned.task.plan().skycells) if planned.task else 0,
        "templates": len(made),
        "bytes": sum(path.stat().st_size for path in made),
        "folder": str(made[0].parent) if made else "",
        "why": planned.why,
    }


def write_page(path, sector, plans):
    """Write the page of a sector: which CCDs are done, with links to the pages of their templates.

    Parameters
    ----------
    path : path-like
        In the folder from which the page is to be read, for its links are relative.
    sector : int
    plans : dict of CCD to Planned
        The tasks of which are complete.
    """
    # Imported here: a plan of an FFI needs this module, and no page.
    from syndiff_tasks.report import sector_page

    folder = Path(path).parent
    entries = [entry for ccd, planned in plans.items() if planned.task for entry in _entries(ccd, planned.task, folder)]
    states = {(ccd.camera, ccd.ccd): planned.state for ccd, planned in plans.items()}
    sector_page.write(path, sector, entries, states)


def _entries(ccd, task, folder):
    """Return the templates of a CCD for the page, the first with a thumbnail; without pictures they have no pages."""
    from syndiff_tasks.report import sector_page, thumbnail

    for number, ((dx, dy), (template, *beside)) in enumerate(task.templates().items()):
        yield sector_page.Entry(
            ccd.camera,
            ccd.ccd,
            name=Path(template.path).name,
            offset=f"dx {dx:+}, dy {dy:+} px",
            page=os.path.relpath(beside[-1].path, folder) if beside else "",
            thumbnail=b"" if number else thumbnail.thumbnail(template.path),
        )
