"""One run at a time in a folder, until a run lets others in."""

import re
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.common.run_lock import hold_run_lock, release_run_lock


def test_a_second_run_is_refused_until_the_first_one_lets_it_in(tmp_path: Path) -> None:
    hold_run_lock(tmp_path)
    with pytest.raises(UserError, match=r"another run \(process \d+\)"):
        hold_run_lock(tmp_path)
    release_run_lock(tmp_path)
    hold_run_lock(tmp_path)
    # that one is alone again
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        hold_run_lock(tmp_path)
