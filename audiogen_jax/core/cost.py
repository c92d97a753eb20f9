def flops(*a, **k): return 0.0
