// The dialect that every kernel is written in: one source, three builds.
//
//   cuda    nvcc: real threads.
//   host    g++: one lane a block, so that lane-strided loops become plain loops that the compiler vectorises.
//   check   g++ -DFIELDSHOT_CHECK: 256 lanes a block on fibers in shuffled order (tests/machine).
//
// A kernel takes one plain struct by value (params.cuh) and is written as
//
//   KERNEL(scale, ScaleParams) {                      // p : the struct
//     for (int i = lane(); i < p.N; i += LANES) p.out[i] = 2 * p.in[i];
//   }
//
//   LANES, WARP, WARPS         lanes a block, lanes a warp, warps a block; compile-time constants
//   lane() warp() warp_lane()  this lane in its block, its warp in the block, this lane in its warp
//   block() blocks()           this block, and how many were launched
//   sync()                     barrier of the block; orders shared and global memory among its lanes
//   shuffle_xor(value, offset) value of the lane whose number differs by `offset`; all lanes of the warp take part
//   SHARED(type, name, count)  fixed shared memory;  shared_memory() : what the launch asked for, 16-byte aligned
//   Vec<T>, VEC<T>             what a lane works on at once: a SIMD vector on the host, one number elsewhere
//   load<A>(from) store(to, v) VEC<A> numbers, converted to A; total<T>(v) : their sum
//   transpose<T>(v)            VEC<T> vectors: their rows become columns
//   REGISTERS                  vectors that a lane of the host keeps at once
//   fetch(at)                  the host may bring this line, to be changed soon, into its cache
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "params.cuh"

#if defined(__CUDACC__)

constexpr int LANES = 256, WARP = 32;
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define KERNEL(name, Params) \
  extern "C" __global__ void __launch_bounds__(LANES, 1) name(const __grid_constant__ Params p)
#define SHARED(type, name, count) __shared__ type name[count]

DEVICE int lane() { return threadIdx.x; }
DEVICE int block() { return blockIdx.x; }
DEVICE int blocks() { return gridDim.x; }
DEVICE void sync() { __syncthreads(); }
template <typename T> DEVICE T shuffle_xor(T value, int offset) { return __shfl_xor_sync(0xffffffffu, value, offset); }
DEVICE void* shared_memory() {
  extern __shared__ float4 dynamic_shared[];
  return dynamic_shared;
}

#else

#define SIMT_LAUNCHER(name, Params)                                                                               \
  static void name##_block(const Params& p);                                                                      \
  extern "C" __attribute__((visibility("default"))) int fieldshot_##name(const Params* p, int first, int last,    \
                                                                         int blocks, size_t shared_bytes) {       \
    return simt::launch([params = *p] { name##_block(params); }, #name, first, last, blocks, shared_bytes);       \
  }                                                                                                               \
  static void name##_block(const Params& p)

#if defined(FIELDSHOT_CHECK)

#include "machine.hpp"
using namespace simt;
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define KERNEL(name, Params) SIMT_LAUNCHER(name, Params)
#define SHARED(type, name, count) type* name = (type*)simt::shared_static(__FILE__, __LINE__, sizeof(type) * (count))

#else  // host

#include <cstdlib>
#include <vector>

namespace simt {
// Blocks of one launch run one after the other on the calling thread; several threads may launch at once.
static thread_local int current_block, block_count;
static thread_local void* current_shared;
template <typename Body> int launch(Body body, const char*, int first, int last, int blocks, size_t shared_bytes) {
  static thread_local std::vector<double> shared;
  if (shared.size() * sizeof(double) < shared_bytes + 64) shared.resize(shared_bytes / sizeof(double) + 8);
  current_shared = (void*)(((uintptr_t)shared.data() + 63) & ~(uintptr_t)63);
  block_count = blocks;
  for (current_block = first; current_block < last; ++current_block) body();
  return 0;
}
}  // namespace simt

constexpr int LANES = 1, WARP = 1;
#define DEVICE static inline __attribute__((always_inline))
#define DEVICE_MEMBER inline __attribute__((always_inline))
#define KERNEL(name, Params) SIMT_LAUNCHER(name, Params)
#define SHARED(type, name, count) alignas(64) type name[count]

DEVICE int lane() { return 0; }
DEVICE int block() { return simt::current_block; }
DEVICE int blocks() { return simt::block_count; }
DEVICE void sync() {}
template <typename T> DEVICE T shuffle_xor(T value, int) { return value; }
DEVICE void* shared_memory() { return simt::current_shared; }

#endif
#endif

constexpr int WARPS = LANES / WARP;
DEVICE int warp() { return lane() / WARP; }
DEVICE int warp_lane() { return lane() % WARP; }

// --- vectors: on the host a warp is one lane that works on VEC numbers at once, elsewhere it is 32 lanes ---

#if defined(__CUDACC__) || defined(FIELDSHOT_CHECK)
template <typename T> constexpr int VEC = 1;
constexpr int REGISTERS = 16;
template <typename T> using Vec = T;
template <typename A, typename T> DEVICE A load(const T* from) { return (A)*from; }
template <typename T> DEVICE double total(Vec<T> v) { return v; }
template <typename T> DEVICE void store(T* to, Vec<T> v) { *to = v; }
template <typename T> DEVICE void transpose(Vec<T>*) {}
DEVICE void fetch(const void*) {}
#else
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;  // SSE2, NEON
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif
template <typename T> struct VecOf { typedef T type __attribute__((vector_size(VECTOR_BYTES))); };
template <typename T> constexpr int VEC = VECTOR_BYTES / sizeof(T);
template <typename T> using Vec = typename VecOf<T>::type;
template <typename A, typename T> DEVICE Vec<A> load(const T* from) {
  typedef T Raw __attribute__((vector_size(VEC<A> * sizeof(T))));
  Raw v;
  __builtin_memcpy(&v, from, sizeof v);
  return __builtin_convertvector(v, Vec<A>);
}
template <typename T> DEVICE double total(Vec<T> v) {
  double sum = 0;
  for (int i = 0; i < VEC<T> / 2; ++i) sum += v[i] + v[i + VEC<T> / 2];
  return sum;
}
template <typename T> DEVICE void store(T* to, Vec<T> v) { __builtin_memcpy(to, &v, sizeof v); }
template <typename T> DEVICE void transpose(Vec<T>* v) {
  typedef decltype(v[0] < v[0]) Places;  // whole numbers of the same size
  constexpr int HALF = VEC<T> / 2;
  Places low, high;
  for (int i = 0; i < VEC<T>; ++i) low[i] = i / 2 + i % 2 * VEC<T>, high[i] = low[i] + HALF;
  for (int round = 1; round < VEC<T>; round *= 2) {  // a shuffle of all numbers, as of cards
    Vec<T> shuffled[VEC<T>];
    for (int i = 0; i < HALF; ++i) {
      shuffled[2 * i] = __builtin_shuffle(v[i], v[i + HALF], low);
      shuffled[2 * i + 1] = __builtin_shuffle(v[i], v[i + HALF], high);
    }
    for (int i = 0; i < VEC<T>; ++i) v[i] = shuffled[i];
  }
}
DEVICE void fetch(const void* at) { __builtin_prefetch(at, 1); }
#endif

// e^x for x <= 0; below e^-87 it is e^-87. Cephes' expf, in a form that the compiler turns into vectors.
#if defined(__CUDACC__) || defined(FIELDSHOT_CHECK)
DEVICE float exp_of_negative(float x) { return expf(fmaxf(x, -87.0f)); }
#else
DEVICE float exp_of_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  const int power = (int)(x * 1.44269504f - 0.5f);  // rounds to nearest, for x is not positive
  const float r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;
  sum = sum * r + 1.3981999507e-3f;
  sum = sum * r + 8.3334519073e-3f;
  sum = sum * r + 4.1665795894e-2f;
  sum = sum * r + 1.6666665459e-1f;
  sum = sum * r + 5.0000001201e-1f;
  const int32_t bits = (power + 127) << 23;
  float scale;
  __builtin_memcpy(&scale, &bits, sizeof scale);
  return (sum * r * r + r + 1) * scale;
}
#endif

// --- reductions: in an order that does not depend on timing, and every lane gets the result ---

template <typename T> DEVICE T warp_sum(T value) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) value += shuffle_xor(value, offset);
  return value;
}

template <typename T> DEVICE T warp_max(T value) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) {
    T other = shuffle_xor(value, offset);
    value = other > value ? other : value;
  }
  return value;
}

DEVICE double block_sum(double value) {
  if (LANES == 1) return value;
  SHARED(double, parts, WARPS);
  value = warp_sum(value);
  sync();  // those who still read the last result
  if (warp_lane() == 0) parts[warp()] = value;
  sync();
  double sum = 0;
  for (int w = 0; w < WARPS; ++w) sum += parts[w];
  return sum;
}
