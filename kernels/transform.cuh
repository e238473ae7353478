// The embedding transform of one row by one warp; transform.cu has the formula.
#pragma once

#include "simt.cuh"

DEVICE void transform_row(const float* z, float* u, int D) {
  float largest = 0;
  for (int d = warp_lane(); d < D; d += WARP) largest = fabsf(z[d]) > largest ? fabsf(z[d]) : largest;
  largest = warp_max(largest);
  if (largest == 0) {
    for (int d = warp_lane(); d < D; d += WARP) u[d] = 0;
    return;
  }
  float sum = 0;
  for (int d = warp_lane(); d < D; d += WARP) sum += fabsf(z[d]) / largest;
  const float length = 1 / sqrtf(warp_sum(sum));
  for (int d = warp_lane(); d < D; d += WARP) u[d] = copysignf(sqrtf(fabsf(z[d]) / largest) * length, z[d]);
}
