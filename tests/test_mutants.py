"""Each bug of `make mutants` replaces a line that the package has exactly once."""

import pytest
from mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_each_bug_has_one_place(mutant: Mutant) -> None:
    assert (ROOT / "ptycho_torch" / mutant.module).read_text().count(mutant.right) == 1
    assert mutant.right != mutant.wrong
