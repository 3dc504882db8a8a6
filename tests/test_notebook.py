"""The notebook of the documentation, executed."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "template.ipynb"


@pytest.mark.slow
def test_the_notebook_finds_the_flux_of_the_transient(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": tmp_path}}).execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    injected, found = (float(line.split(" electrons/s")[0].split()[-1]) for line in text.splitlines()[-2:])
    assert found == pytest.approx(injected, rel=0.1)
