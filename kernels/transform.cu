// The embedding transform: signed square root, then unit length (the power transform of PT-MAP, Hu et al. 2021).
//
//   u = sign(z) sqrt(|z| / sum |z|)          Z (N, D) float32 -> U (N, D) float32; zero stays zero
//
// A warp a row. Divided by the row's largest first, so that no sum leaves the range of float32.

#include "transform.cuh"

KERNEL(transform, TransformParams) {
  for (int i = block() * WARPS + warp(); i < p.N; i += blocks() * WARPS)
    transform_row(p.Z + (size_t)i * p.D, p.U + (size_t)i * p.D, p.D);
}
