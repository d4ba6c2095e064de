"""Each bug of `make mutants` replaces a line that the package has exactly once, and the tables of
`make mutation` are those of its record.
"""

import pytest
from equivalent_mutants import EQUIVALENT
from mutants import MUTANTS, ROOT, Mutant
from mutation_scores import DOCUMENT, document


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_each_bug_has_one_place(mutant: Mutant) -> None:
    assert (ROOT / "ptycho_torch" / mutant.module).read_text().count(mutant.right) == 1
    assert mutant.right != mutant.wrong


def test_the_tables_of_the_sweep_are_those_of_its_record() -> None:
    assert DOCUMENT.read_text() == document(), "run: python tests/mutation_scores.py"


def test_each_equivalent_mutant_is_of_a_function_that_is_there() -> None:
    for module, function, _ in EQUIVALENT:
        text = (ROOT / "ptycho_torch" / module).read_text()
        assert f"def {function.rpartition('.')[2]}(" in text, (module, function)
