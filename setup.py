"""Builds the compiled operators; everything else about the package is in pyproject.toml.

One shared library per device, on LibTorch's stable ABI: built once with any torch from 2.9 on, it loads in all later
ones. A compile error fails the installation: there is no silent slow path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import setuptools
import torch
from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from torch.utils.cpp_extension import include_paths, library_paths

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before 70.1: compiles in place alone
    bdist_wheel = setuptools.Command

HERE = Path(__file__).parent
TARGET_TORCH = "0x0209000000000000"  # 2.9, the oldest torch the libraries shall load in


class CompiledInPlace(Distribution):
    """Lets a setuptools too old for our pyproject.toml (before 77) compile in place, which installs nothing."""

    def parse_config_files(self, *arguments: object, **options: object) -> None:
        if "--inplace" not in sys.argv or int(setuptools.__version__.split(".")[0]) >= 77:
            super().parse_config_files(*arguments, **options)
            return
        found = dict(re.findall(r'^(name|version) = "(.+)"$', (HERE / "pyproject.toml").read_text(), re.MULTILINE))
        self.metadata.name, self.metadata.version = found["name"], found["version"]
        self.packages = ["openmm_gnn"]


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


class WheelOfAnyPython(bdist_wheel):
    """Names the wheel py3-none-PLATFORM: the libraries use no symbol of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


# ---- CPU ------------------------------------------------------------------------------------------------------------


def cpu_extension() -> Extension:
    """The operators' schemas and their CPU functions."""
    return Extension(
        "openmm_gnn.libopenmm_gnn_cpu",
        sources=sorted(str(path.relative_to(HERE)) for path in HERE.glob("csrc/*/cpu/*.cpp")),
        depends=[str(path.relative_to(HERE)) for end in ("h", "inl") for path in HERE.glob(f"csrc/**/*.{end}")],
        include_dirs=["csrc", *include_paths()],
        define_macros=[("TORCH_TARGET_VERSION", TARGET_TORCH)],
        extra_compile_args=[
            "-std=c++17",
            os.environ.get("OPENMM_GNN_OPTIMIZE", "-O3"),  # of the CPU's library: sanitizers take less
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


# Machine code for Turing, Ampere with Ada, and Hopper; PTX, from which the driver makes code for all that comes later.
CUDA_CODE = [
    "-gencode=arch=compute_75,code=sm_75",
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=[sm_90,compute_90]",
]


# Both passes of a search must judge every pair by the same bits, so their products and sums are not fused.
UNFUSED_SOURCES = ("neighbor_pairs.cu", "frame_edges.cu")


def cuda_extension() -> Extension | None:
    """The CUDA functions of the same operators.

    None where no CUDA compiler or only a CPU build of torch is found, where the two are of different major versions of
    CUDA, or where OPENMM_GNN_CUDA=0 forbids it; OPENMM_GNN_CUDA=1 compiles whatever the versions.
    """
    asked = os.environ.get("OPENMM_GNN_CUDA")
    if asked == "0" or torch.version.cuda is None or shutil.which("nvcc") is None:
        return None
    told = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"release (\d+)\.", told)
    if asked != "1" and (found is None or found[1] != torch.version.cuda.split(".")[0]):
        nvcc = f"nvcc is of CUDA {found[1]}" if found else "nvcc does not tell its version"
        sys.stderr.write(
            f"openmm_gnn is built WITHOUT CUDA: {nvcc}, torch {torch.__version__} of CUDA {torch.version.cuda}. Put an "
            "nvcc of torch's major version first on the PATH, install a torch of nvcc's, or set OPENMM_GNN_CUDA=1: the "
            "kernels then need a driver for nvcc's CUDA\n"
        )
        return None
    sources = [path for pattern in ("*.cu", "*.cpp") for path in HERE.glob(f"csrc/*/cuda/{pattern}")]
    return Extension(
        "openmm_gnn.libopenmm_gnn_cuda",
        sources=sorted(str(path.relative_to(HERE)) for path in sources),
        depends=[str(path.relative_to(HERE)) for end in ("h", "inl") for path in HERE.glob(f"csrc/**/*.{end}")],
        include_dirs=["csrc", *include_paths()],
        define_macros=[("TORCH_TARGET_VERSION", TARGET_TORCH), ("USE_CUDA", "1")],
        extra_compile_args=["-std=c++17", "-O3"],
        # CUDA's runtime is linked in, and its names hidden from the other one that torch brings.
        extra_link_args=["-Xlinker", "--exclude-libs,ALL", "-Xlinker", "--no-as-needed", "-Xcompiler", "-pthread"],
        library_dirs=library_paths(),
        libraries=["torch_cpu", "torch_cuda"],
        language="c++",
    )


def build_cuda_library(command: BuildLibraries, ext: Extension) -> None:
    """Compiles and links what `cuda_extension` describes: one compiler process for each file, side by side."""
    folder = Path(command.build_temp) / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    library = Path(command.get_ext_fullpath(ext.name))
    library.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "g++").split()
    macros = [f"-D{name}={value}" for name, value in ext.define_macros]
    includes = [f"-I{path}" for path in ext.include_dirs]

    def compile_source(source: str) -> str:
        target = str(folder / (Path(source).name + ".o"))
        if source.endswith(".cu"):
            fused = [] if Path(source).name not in UNFUSED_SOURCES else ["-fmad=false"]
            tool = ["nvcc", *CUDA_CODE, *fused, "-Icsrc", "-lineinfo", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
        else:
            tool = [*compiler, *macros, *includes, "-ffp-contract=off", "-fPIC", "-fvisibility=hidden"]
        command.announce(f"compiling {source}", level=2)
        subprocess.run([*tool, *ext.extra_compile_args, "-c", source, "-o", target], check=True, cwd=HERE)
        return target

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        objects = list(pool.map(compile_source, ext.sources))
    places = [f"-L{path}" for path in ext.library_dirs]
    libraries = [f"-l{name}" for name in ext.libraries]
    link = ["nvcc", "-shared", *objects, *ext.extra_link_args, *places, *libraries, "-o", str(library)]
    subprocess.run(link, check=True, cwd=HERE)


if not sys.platform.startswith("linux"):
    sys.exit(f"openmm_gnn is tested on Linux alone; this is {sys.platform}: use a Linux machine, container or WSL 2")

setup(
    ext_modules=[extension for extension in (cpu_extension(), cuda_extension()) if extension is not None],
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": WheelOfAnyPython},
    distclass=CompiledInPlace,
)
