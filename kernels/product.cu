// Products of rows with rows.
//
//   C = A B^T                               A (n, depth), B (m, depth) -> C (n, m) float64
//
// A warp makes ROWS x COLS numbers, its lanes share the depth.

#include "linear.cuh"

template <typename T> DEVICE void run(const ProductParams& p) {
  product((const T*)p.A, (const T*)p.B, p.n, p.m, p.depth, false, block() * WARPS + warp(),
          blocks() * WARPS, [&](int i, int j, double value) { p.C[(size_t)i * p.m + j] = value; });
}

KERNEL(product_float, ProductParams) { run<float>(p); }

KERNEL(product_double, ProductParams) { run<double>(p); }
