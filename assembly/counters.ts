/** Counters: u64 cells that the host reads between batches; offsets COUNTER_* and USAGE_*. */
export function countUp(counter: usize): void {
  store<u64>(counter, load<u64>(counter) + 1);
}

export function countDown(counter: usize): void {
  const count = load<u64>(counter);
  assert(count > 0, "counters: a count of live things went below zero");
  store<u64>(counter, count - 1);
}

export function countBy(counter: usize, amount: u64): void {
  store<u64>(counter, load<u64>(counter) + amount);
}
