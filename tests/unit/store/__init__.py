import pytest

# Its modules are no test modules, and their assertions are to say as much as those of one.
pytest.register_assert_rewrite(f"{__name__}.contract")
