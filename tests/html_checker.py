"""What the tests of pages share: well-formed HTML, and a headless browser."""

import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Check that tags close in order, and collect links, pictures and text."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.pictures, self.tags, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def checked(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


def screenshot(folder, name, width=1200, height=2600):
    """Return the screenshot of a page of the folder (RGB, 0..255) after checking that the browser did not complain."""
    log = browse(folder, name, f"--screenshot={folder / 'page.png'}", f"--window-size={width},{height}")
    for complaint in ("Content Security Policy", "ERR_", "Uncaught"):
        assert complaint not in log
    return matplotlib.image.imread(folder / "page.png")[..., :3] * 255


def browse(folder, name, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *options]
    command.append((folder / name).as_uri())
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
