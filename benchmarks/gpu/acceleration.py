"""AMOEBA water on OpenMM's CUDA platform: accelerated by a network, and by its own multiple time steps alone.

The contenders and step sizes of benchmarks/acceleration.py, with the network too on the GPU.

    python benchmarks/gpu/run.py acceleration [--quick]
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from device import require_gpu, save_results
from openmm_here import require_cuda_platform

require_gpu()
require_cuda_platform()
BENCHMARK = Path(__file__).resolve().parents[1] / "acceleration.py"
specification = importlib.util.spec_from_file_location("acceleration_of_both", BENCHMARK)
assert specification is not None and specification.loader is not None
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
sys.argv += ["--platform", "CUDA", "--device", "cuda"]
module.save_results = save_results  # of the GPU, not of the processor
module.main()
