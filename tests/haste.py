"""Flags of XLA that compile quickly, for small programs that run once."""

# Compiling takes most of the time of the tests; these take two thirds off.
FLAGS = (
  "--xla_backend_optimization_level=0"
  " --xla_llvm_disable_expensive_passes=true"
  " --xla_cpu_use_fusion_emitters=false"
  " --xla_cpu_parallel_codegen_split_count=1"
)
