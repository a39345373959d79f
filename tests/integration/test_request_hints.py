"""What a refusal of a file of requests says to do is done to the letter, where the programs are there."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.unit.cli.test_request_files import LINES, PACKINGS, REQUESTS, read, refused


class TestTheWayThatIsTold:
    """It is done to the letter, where the programs are there."""

    @pytest.mark.parametrize("name", ["requests.json", "my requests.json"])
    @pytest.mark.parametrize("packing", ["nothing", "gzip"])
    def test_for_requests_on_several_lines(self, tmp_path: Path, name: str, packing: str) -> None:
        data = PACKINGS[packing]("".join(json.dumps(one, indent=2) + "\n" for one in REQUESTS).encode())
        (tmp_path / name).write_bytes(data)
        self.done(refused(data, str(tmp_path / name)).hint, "jq")

    def test_for_an_archive(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "requests.zip", "w") as archive:
            archive.writestr("requests.jsonl", LINES)
        data = (tmp_path / "requests.zip").read_bytes()
        self.done(refused(data, str(tmp_path / "requests.zip")).hint, "unzip")

    def test_for_standard_input(self) -> None:
        assert refused(b'{\n"a": 1}', None).hint.endswith("To read it: ... | jq -c . | claude-batch submit -")

    def done(self, hint: str, program: str) -> None:
        command, _, ours = hint.partition("To read it: ")[2].rpartition(" | ")
        assert ours == "claude-batch submit -"
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        out = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
        assert read(out) == REQUESTS
