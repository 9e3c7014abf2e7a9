"""Builds the compiled operators; everything else about the package is in pyproject.toml.

One shared library per device, on LibTorch's stable ABI: built once with any torch from 2.9 on, it loads in all later
ones. A compile error fails the installation: there is no silent slow path.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).parent
TARGET_TORCH = "0x0209000000000000"  # 2.9, the oldest torch the libraries shall load in


class BuildLibraries(build_ext):
    """Compiles plain shared libraries, loaded by `torch.ops.load_library`, not Python modules."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        if ext.name.endswith("_cuda"):
            build_cuda_library(self, ext)
        else:
            super().build_extension(ext)


# ---- CPU ------------------------------------------------------------------------------------------------------------


def cpu_extension() -> Extension:
    """The operators' schemas and their CPU functions."""
    sources = ["csrc/ops.cpp", *sorted(str(path.relative_to(HERE)) for path in HERE.glob("csrc/cpu/*.cpp"))]
    return Extension(
        "openmm_gnn.libopenmm_gnn_cpu",
        sources=sources,
        depends=[str(path.relative_to(HERE)) for path in HERE.glob("csrc/**/*.h")],
        include_dirs=["csrc", *include_paths()],
        define_macros=[("TORCH_TARGET_VERSION", TARGET_TORCH)],
        extra_compile_args=[
            "-std=c++17",
            "-O3",
            "-fno-math-errno",
            "-ffp-contract=off",  # the same bits from every instruction set
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
        ],
        # No run path: the torch that is already loaded, of whatever version, provides this library.
        library_dirs=library_paths(),
        libraries=["torch_cpu"],
        extra_link_args=["-pthread", "-Wl,--no-as-needed"],
        language="c++",
    )


# ---- CUDA -----------------------------------------------------------------------------------------------------------


def cuda_extension() -> Extension | None:
    """The CUDA functions of the same operators, or None where no CUDA compiler or no CUDA build of torch is found."""
    return None


def build_cuda_library(command: BuildLibraries, ext: Extension) -> None:
    """Compiles and links what `cuda_extension` describes."""
    raise NotImplementedError


setup(
    ext_modules=[extension for extension in (cpu_extension(), cuda_extension()) if extension is not None],
    cmdclass={"build_ext": BuildLibraries},
)
