// Kernels with planted faults, each beside its sound twin: the check machine must tell one from the other.
// p.faulty chooses, so that both are the same code but for the fault.

#include "simt.cuh"

struct PlantedParams {
  const float* in;  // (N)
  float* out;       // (N), or as the kernel says
  int N, faulty;
};

// Each lane takes its neighbour's number out of shared memory.
KERNEL(removed_barrier, PlantedParams) {
  SHARED(float, row, LANES);
  row[lane()] = p.in[lane()];
  if (!p.faulty) sync();
  p.out[lane()] = row[(lane() + 1) % LANES];
}

// The barrier that keeps a fast lane from overwriting what a slow one still reads: read, then write.
KERNEL(removed_second_barrier, PlantedParams) {
  float* row = (float*)shared_memory();  // (LANES)
  float sum = 0;
  for (int i = 0; i < p.N; i += LANES) {
    row[lane()] = p.in[i + lane()];
    sync();
    sum += row[LANES - 1 - lane()];
    if (!p.faulty) sync();
  }
  p.out[lane()] = sum;
}

// A shuffle hands over a value, and orders nothing else: CUDA promises no more, not even within a warp.
KERNEL(shuffle_for_barrier, PlantedParams) {
  SHARED(float, row, LANES);
  row[lane()] = p.in[lane()];
  if (p.faulty)
    warp_sum(1.0f);
  else
    sync();
  p.out[lane()] = row[lane() ^ 1];
}

// Lanes count together; the sum is read behind a barrier, or too early.
KERNEL(atomic_beside_plain, PlantedParams) {
  SHARED(int, count, 1);
  if (lane() == 0) *count = 0;
  sync();
  __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
  if (!p.faulty) sync();
  p.out[lane()] = (float)*count;
}

KERNEL(global_off_by_one, PlantedParams) {
  for (int i = lane(); i < p.N + p.faulty; i += LANES) p.out[i] = 2 * p.in[i % p.N];
}

KERNEL(global_read_off_by_one, PlantedParams) {
  for (int i = lane(); i < p.N; i += LANES) p.out[i] = p.in[i + p.faulty];
}

// Shared memory of N floats is asked for at launch.
KERNEL(shared_off_by_one, PlantedParams) {
  float* row = (float*)shared_memory();
  for (int i = lane(); i < p.N + p.faulty; i += LANES) row[i] = p.in[i % p.N];
  sync();
  for (int i = lane(); i < p.N; i += LANES) p.out[i] = row[i];
}

KERNEL(static_shared_off_by_one, PlantedParams) {
  SHARED(float, row, LANES);
  row[lane() + p.faulty] = p.in[lane()];
  sync();
  p.out[lane()] = row[lane()];
}

KERNEL(other_stack, PlantedParams) {
  SHARED(float*, mine, LANES);
  float number = p.in[lane()];
  mine[lane()] = &number;
  sync();
  p.out[lane()] = *mine[p.faulty ? lane() ^ 1 : lane()];
  sync();
}

// out (1): a sum of floats in the order in which lanes come, atomic and so no race; or in an order that is fixed.
KERNEL(order_of_lanes, PlantedParams) {
  const float value = p.in[lane()];
  if (!p.faulty) {
    const double sum = block_sum(value);
    if (lane() == 0) *p.out = (float)sum;
    return;
  }
  float before, after;
  __atomic_load(p.out, &before, __ATOMIC_SEQ_CST);
  do after = before + value;
  while (!__atomic_compare_exchange(p.out, &before, &after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

// The mask of the first 16 lanes, in a shuffle that all 32 take part in.
KERNEL(wrong_mask, PlantedParams) {
  p.out[lane()] = shuffle_xor_masked(p.faulty ? 0xffffu : 0xffffffffu, p.in[lane()], 1);
}

// Half a warp leaves before a shuffle that names it; or it takes part.
KERNEL(missing_lanes, PlantedParams) {
  if (p.faulty && warp_lane() >= 16) return;
  p.out[lane()] = warp_sum(p.in[lane()]);
}

// Half a warp is enough where the mask says so.
KERNEL(half_warp, PlantedParams) {
  float value = p.in[lane()];
  if (warp_lane() < 16) value = shuffle_xor_masked(0xffffu, value, p.faulty ? 16 : 8);
  p.out[lane()] = value;
}

KERNEL(returned_before_barrier, PlantedParams) {
  if (p.faulty && lane() >= 100) return;
  sync();
  p.out[lane()] = p.in[lane()];
}

KERNEL(barrier_in_branch, PlantedParams) {
  if (p.faulty && lane() % 2)
    sync();
  else
    sync();
  p.out[lane()] = p.in[lane()];
}

// One lane of each warp waits at the barrier for those that wait for it in the shuffle.
KERNEL(barrier_beside_shuffle, PlantedParams) {
  const bool early = p.faulty && warp_lane() == 0;
  if (early) sync();
  p.out[lane()] = warp_sum(p.in[lane()]);
  if (!early) sync();
}

// One warp goes past a sum that all the others make.
KERNEL(barrier_of_some_warps, PlantedParams) {
  float value = p.in[lane()];
  if (!p.faulty || warp() > 0) value = block_sum(value);
  p.out[lane()] = warp_sum(value);
}

// out (blocks): each block writes a number of its own; or all write the first.
KERNEL(two_blocks_write, PlantedParams) {
  if (lane() == 0) p.out[p.faulty ? 0 : block()] = p.in[block()];
}

// A block reads what another writes.
KERNEL(block_reads_block, PlantedParams) {
  if (lane() == 0) p.out[block()] = p.in[block()];
  if (p.faulty && lane() == 0) p.out[block()] += p.out[(block() + 1) % blocks()];
}

// out (1): all blocks read it, and one writes it.
KERNEL(block_writes_what_blocks_read, PlantedParams) {
  float sum = 0;
  if (lane() == 0 && (p.faulty || block() == 2)) sum = p.out[0] + 1;
  if (lane() == 0 && block() == 2) p.out[0] = sum;
}

KERNEL(uninitialised_shared, PlantedParams) {
  float* row = (float*)shared_memory();  // (LANES)
  SHARED(float, other, LANES);
  if (!p.faulty || block() == 0) row[lane()] = other[lane()] = p.in[lane()];
  sync();
  p.out[block() * LANES + lane()] = row[(lane() + 1) % LANES] + other[lane()];
}

KERNEL(signed_overflow, PlantedParams) {
  int number = 0x7fffff00;
  for (int i = 0; i <= lane(); ++i) number += p.faulty;
  p.out[lane()] = (float)number;
}

KERNEL(misaligned, PlantedParams) {
  const char* from = (const char*)(p.in + lane());
  if (lane() < LANES - 1) p.out[lane()] = *(const float*)(from + p.faulty);
}

// Bytes of one word by different lanes are no race, unless they are the same bytes.
KERNEL(bytes, PlantedParams) {
  signed char* out = (signed char*)p.out;
  out[p.faulty ? lane() / 2 : lane()] = (signed char)p.in[lane()];
}

struct Row {
  float numbers[16];
};

// A struct large enough for a call of memcpy.
KERNEL(copied_struct, PlantedParams) {
  SHARED(Row, rows, LANES);
  for (int i = 0; i < 16; ++i) rows[lane()].numbers[i] = p.in[lane()];
  if (!p.faulty) sync();
  const Row row = rows[lane() ^ WARP];
  p.out[lane()] = row.numbers[lane() % 16];
}

// --- sound patterns ---

constexpr float WEIGHTS[4] = {1, 2, 3, 4};  // constants of the library are no region, and may be read

// Moving sums: panels in two halves of shared memory, one filled while the other is read; one barrier a panel.
// Then reductions, and a result per block.  in (blocks, N) -> out (blocks)
KERNEL(double_buffer, PlantedParams) {
  float* halves = (float*)shared_memory();  // (2, LANES)
  SHARED(double, best, WARPS);
  const float* in = p.in + (size_t)block() * p.N;
  double sum = 0;
  halves[lane()] = in[lane()];
  for (int i = 0; i < p.N; i += LANES) {
    sync();
    const float* now = halves + i / LANES % 2 * LANES;
    if (i + LANES < p.N) halves[(i / LANES + 1) % 2 * LANES + lane()] = in[i + LANES + lane()];
    for (int k = 0; k < 4; ++k) sum += WEIGHTS[lane() % 4] * now[(lane() + k) % LANES];
  }
  const double all = block_sum(sum), most = warp_max(sum);
  if (warp_lane() == 0) best[warp()] = most;
  sync();
  double largest = best[0];
  for (int w = 1; w < WARPS; ++w) largest = best[w] > largest ? best[w] : largest;
  const double square = block_sum(sum * sum);
  if (lane() == 0) p.out[block()] = (float)(all + largest + square);
}

// --- to be timed ---

KERNEL(barriers, PlantedParams) {
  for (int i = 0; i < p.N; ++i) sync();
}

KERNEL(shuffles, PlantedParams) {
  float value = p.in[lane()];
  for (int i = 0; i < p.N; ++i) value = shuffle_xor(value, 1);
  p.out[lane()] = value;
}

// Two reads a turn.
KERNEL(accesses, PlantedParams) {
  float* row = (float*)shared_memory();  // (LANES)
  row[lane()] = 1;
  sync();
  float sum = 0;
  for (int i = 0; i < p.N; ++i) sum += row[(lane() + i) % LANES] * p.in[(lane() + 5 * i) % LANES];
  p.out[lane()] = sum;
}
