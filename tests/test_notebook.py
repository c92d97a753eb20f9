"""The notebook runs, but for what needs the network."""

import pathlib

import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "launch" / "colab.ipynb"


@pytest.mark.slow
def test_colab(tmp_path):
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbformat.validate(notebook)
  assert not any(cell.get("outputs") for cell in notebook.cells)
  skipped = {"install", "hub"}
  notebook.cells = [
    cell
    for cell in notebook.cells
    if not skipped & set(cell.metadata.get("tags", ()))
  ]
  nbclient.NotebookClient(
    notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
  ).execute()
  shown = [
    kind
    for cell in notebook.cells
    for output in cell.get("outputs", ())
    for kind in output.get("data", ())
  ]
  # Two sounds, two more, one continued, one through the codec.
  assert shown.count("image/png") == 6
  assert sum("<audio" in str(cell) for cell in notebook.cells) == 4
