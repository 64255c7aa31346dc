"""Wheels hold the kernels compiled, where the machine that builds them has a C++ compiler.

One library for each of the instruction sets that PyTorch tells apart; `assay.native.build` takes
the one for the processor it finds. Without a compiler the wheel is of Python alone, and the kernels
are compiled at first use.
"""

import runpy
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):  # type: ignore[misc,type-arg]
    """Compiles the kernels into the wheel; an editable install is left as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the wheel after the platform."""
        if version == "editable":
            return
        build = runpy.run_path(str(Path(self.root) / "src/assay/native/compiler.py"))
        compiler = build["find_compiler"]()
        if compiler is None:
            self.app.display_warning("no C++ compiler found: the wheel holds no compiled kernels")
            return
        self._folder = tempfile.TemporaryDirectory()
        try:
            told = build["version_of"](compiler)
            for name, target in build["shipped_targets"]().items():
                library = Path(self._folder.name) / f"kernels-{name}.so"
                build["compile_to"](library, build["command_of"](compiler, told, target))
                build_data["force_include"][str(library)] = f"assay/native/{library.name}"
        except (OSError, subprocess.SubprocessError) as error:
            build_data["force_include"].clear()
            self.app.display_warning(f"{compiler}: {error}: the wheel holds no compiled kernels")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
