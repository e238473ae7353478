// The embedding transform of one row by one warp; transform.cu has the formula.
#pragma once

#include "simt.cuh"

DEVICE void transform_row(const float* z, float* u, int D) {
  // The bits of floats above 0 are in their order, and of whole numbers the compiler finds the largest with vectors.
  int32_t most = 0;
  for (int d = warp_lane(); d < D; d += WARP) {
    const float number = z[d];  // from memory itself nvcc would copy byte by byte
    int32_t bits;
    memcpy(&bits, &number, sizeof bits);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  most = warp_max(most);
  if (most == 0) {
    for (int d = warp_lane(); d < D; d += WARP) u[d] = 0;
    return;
  }
  // The power of two that brings it near 1, by its exponent: exact, and no division for each number.
  const int32_t power = most >> 23 < 253 ? (254 - (most >> 23)) << 23 : 1 << 23;
  float scale;
  memcpy(&scale, &power, sizeof scale);
  float sum = 0;
  for (int d = warp_lane(); d < D; d += WARP) sum += fabsf(z[d]) * scale;
  const float length = 1 / sqrtf(warp_sum(sum));
  for (int d = warp_lane(); d < D; d += WARP) u[d] = copysignf(sqrtf(fabsf(z[d]) * scale) * length, z[d]);
}
