"""A pretended CUDA device for machines without one: what a real GPU refuses is refused, the numbers come from the CPU.

Every tensor "on cuda:0" or "on cuda:1" wraps a CPU tensor, so that a CPU build of torch runs the whole GPU path of the
product. Tensors of two devices in one operation, a CPU generator for a CUDA tensor, `.numpy()` of a CUDA tensor all
raise as on a GPU; launches, host synchronizations and pageable uploads are counted by source line (`counters`). The
compiled parts of gsplat and nerfacc are stood in for by the torch references of this project (`gsplat_kernels`,
`nerfacc_kernels`), behind the Python code of these libraries as installed: a run on the pretended device gives the
asset that the CPU gives, to rounding.

It is process-wide and has to come before torch is imported:

    pytest -p tests.support.pretend_cuda.plugin tests/pretend     # tests that are written for it
    python -m tests.support.pretend_cuda generate "a mug" ...     # any sds3d command line
    PRETEND_CUDA=no-gsplat ...                                    # compiled parts that are missing, as without nvcc

`tests/test_pretend_cuda.py` runs the first of these in a process of its own, so plain `pytest` covers it.

Not modelled: memory (`torch.cuda.max_memory_allocated` counts what lives in wrappers), the order of streams, atomics,
accuracy of TF32 and of half precision beyond rounding, kernels of PyTorch3D.
"""
