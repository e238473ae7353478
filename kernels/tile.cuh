// A tile of a product that is summed over rows: C[i][j] += sum_k A[k][i] B[k][j].
//
// A panel is TILE columns of A or B, row by row: (depth, TILE) numbers in one piece. A block has both in shared memory.
// What becomes columns anyhow is written to memory in panels at once: the host reads them there.
#pragma once

#include "linear.cuh"

constexpr int TILE = 64;  // rows and columns of C that a block makes at once
// Rows that a warp turns into columns at once: a line of the host's cache, a sector of a GPU's.
template <typename T> constexpr int STRIP = (LANES == 1 ? 64 : 32) / sizeof(T);
constexpr int DEPTH = LANES == 1 ? 64 : 32;  // rows of a panel: two of float32 and a tile lie in the nearest cache

// `depth` rows as a panel: the tile's columns, of which the first `valid` are there, and zeros after them. Rows of a
// panel the host reads where they are, with whatever lies after the valid ones. A warp a row.
template <typename T>
DEVICE const T* staged(T* panel, const T* rows, size_t stride, int depth, int valid) {
  if (LANES == 1 && stride == TILE) return rows;
  for (int k = warp(); k < depth; k += WARPS)
    for (int d = warp_lane(); d < TILE; d += WARP) panel[k * TILE + d] = d < valid ? rows[k * stride + d] : 0;
  return panel;
}

// Up to STRIP rows of `depth` numbers become columns of a panel, by a warp; a lane reads every WARP-th number of a row.
template <typename T> DEVICE void turn(const T* rows, size_t stride, int count, int depth, T* panel) {
  int from = 0;
  if (VEC<T> > 1 && count % VEC<T> == 0)
    for (; from + VEC<T> <= depth; from += VEC<T>)
      for (int first = 0; first < count; first += VEC<T>) {
        Vec<T> square[VEC<T>];
        for (int r = 0; r < VEC<T>; ++r) {
          square[r] = load<T>(rows + (first + r) * stride + from);
          fetch(panel + (size_t)(from + VEC<T> + r) * TILE + first);
        }
        transpose<T>(square);
        for (int k = 0; k < VEC<T>; ++k) store<T>(panel + (size_t)(from + k) * TILE + first, square[k]);
      }
  for (int k = from + warp_lane(); k < depth; k += WARP)
    for (int r = 0; r < count; ++r) panel[(size_t)k * TILE + r] = rows[r * stride + k];
}

// Where a tile belongs: at C, with so many rows and columns of the matrix from there on. Of row i what lies right of
// column i + below is above the diagonal and stays as it is.
struct Place {
  double* C;
  size_t stride;
  int height, width, below;
};

// A lane makes micro-tiles of RM x RN numbers: on a GPU one of 4 x 4, on the host all of the tile, one after the other,
// each in half of the vector registers.
template <typename T> struct Tile {
  static constexpr int RM = LANES == 1 ? REGISTERS / 4 : 4, RN = LANES == 1 ? 2 * VEC<T> : 4, ACROSS = TILE / RN;
  static constexpr int MICROS = TILE / RM * ACROSS;
  T kept[LANES == 1 ? MICROS : 1][RM][RN];

  // Add up `depth` rows of two panels, on top of those before unless they are the `first`. With the `last` ones C becomes
  // (fresh ? 0 : C) + sign * sums.
  DEVICE_MEMBER void add(const T* A, const T* B, int depth, const Place& to, double sign, bool fresh, bool first,
                         bool last) {
    for (int micro = lane(); micro < MICROS; micro += LANES) {
      const int i = micro / ACROSS * RM, j = micro % ACROSS * RN;
      if (LANES == 1 && (i >= to.height || j >= to.width || j > i + RM - 1 + to.below)) continue;
      T(&sums)[RM][RN] = kept[LANES == 1 ? micro : 0];
      if (last)
        for (int r = 0; r < RM; ++r)
          for (int c = 0; c < RN; c += VEC<double>) fetch(to.C + (i + r) * to.stride + j + c);
      multiply(A + i, B + j, depth, sums, first);
      if (!last) continue;
      for (int r = 0; r < RM; ++r) {
        const int end = i + r >= to.height ? 0 : i + r + to.below + 1 < to.width ? i + r + to.below + 1 : to.width;
        double* row = to.C + (i + r) * to.stride + j;
        if (VEC<double> > 1 && j + RN <= end) {
          for (int c = 0; c < RN; c += VEC<double>) {
            const Vec<double> sum = sign * load<double>(sums[r] + c);
            store<double>(row + c, fresh ? sum : load<double>(row + c) + sum);
          }
        } else {
          for (int c = 0; c < RN; ++c)
            if (j + c < end) row[c] = (fresh ? 0 : row[c]) + sign * sums[r][c];
        }
      }
    }
  }

  // sums[r][c] = (first ? 0 : sums[r][c]) + sum_k A[k][r] B[k][c]
  DEVICE_MEMBER void multiply(const T* A, const T* B, int depth, T (&sums)[RM][RN], bool first) {
    Vec<T> part[RM][RN / VEC<T>];
    for (int r = 0; r < RM; ++r)
      for (int c = 0; c < RN / VEC<T>; ++c) part[r][c] = first ? Vec<T>{} : load<T>(sums[r] + c * VEC<T>);
    for (int k = 0; k < depth; ++k) {
      Vec<T> right[RN / VEC<T>];
      for (int c = 0; c < RN / VEC<T>; ++c) right[c] = load<T>(B + k * TILE + c * VEC<T>);
      for (int r = 0; r < RM; ++r)
        for (int c = 0; c < RN / VEC<T>; ++c) part[r][c] += A[k * TILE + r] * right[c];
    }
    for (int r = 0; r < RM; ++r)
      for (int c = 0; c < RN / VEC<T>; ++c) store<T>(sums[r] + c * VEC<T>, part[r][c]);
  }
};

// Tile number t of the lower triangle of tiles, row by row: its row and column.
DEVICE void triangle(int t, int* row, int* column) {
  int i = 0;
  while ((i + 1) * (i + 2) / 2 <= t) ++i;
  *row = i, *column = t - i * (i + 1) / 2;
}
