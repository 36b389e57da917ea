/**
 * Security groups: a flow may begin when one rule matches. Groups are stateful, as AWS's are: only
 * the packet that begins a flow is asked, the flow table remembers the answer.
 *
 * A rule is an address under a mask and a range of keys, protocol << 16 | port, so that any
 * protocol is one range like any other. Four IPv4 rules stand in one cache line; eight are
 * compared at once.
 */
import {
  RULE_BLOCK_ADDRESS,
  RULE_BLOCK_BYTES,
  RULE_BLOCK_HIGH,
  RULE_BLOCK_LOW,
  RULE_BLOCK_MASK,
  RULES_BLOCKS,
  RULES_COUNT,
  RULES_COUNT6,
} from "../abi";

/** Whether the rules at `rules` let the other end `address` in, at the protocol and port of `key`. */
export function allows(rules: usize, address: usize, isIpv6: u32, key: u32): bool {
  const count = load<u32>(rules, RULES_COUNT);
  const blocks = rules + <usize>RULES_BLOCKS;
  if (isIpv6) {
    const start = blocks + <usize>(count * RULE_BLOCK_BYTES);
    return allows6(start, load<u32>(rules, RULES_COUNT6), v128.load(address), key);
  }
  const other = i32x4.splat(load<i32>(address));
  const wanted = i32x4.splat(<i32>key);
  const end = blocks + <usize>(count * RULE_BLOCK_BYTES);
  for (let block = blocks; block < end; block += 2 * RULE_BLOCK_BYTES) {
    const first = holding(block, other, wanted);
    const second = holding(block + RULE_BLOCK_BYTES, other, wanted);
    if (v128.any_true(v128.or(first, second))) return true;
  }
  return false;
}

/** Lanes of a block whose rules hold. */
function holding(block: usize, other: v128, wanted: v128): v128 {
  const differs = v128.and(
    v128.xor(v128.load(block, RULE_BLOCK_ADDRESS), other),
    v128.load(block, RULE_BLOCK_MASK),
  );
  const isInRange = v128.and(
    i32x4.gt_s(wanted, v128.load(block, RULE_BLOCK_LOW)),
    i32x4.gt_s(v128.load(block, RULE_BLOCK_HIGH), wanted),
  );
  return v128.and(i32x4.eq(differs, i32x4.splat(0)), isInRange);
}

function allows6(start: usize, count: u32, address: v128, key: u32): bool {
  const end = start + <usize>(count * RULE_BLOCK_BYTES);
  for (let rule = start; rule < end; rule += RULE_BLOCK_BYTES) {
    const isBelow = <i32>key <= load<i32>(rule, RULE_BLOCK_LOW);
    if (isBelow || <i32>key >= load<i32>(rule, RULE_BLOCK_HIGH)) continue;
    const differs = v128.and(
      v128.xor(v128.load(rule, RULE_BLOCK_ADDRESS), address),
      v128.load(rule, RULE_BLOCK_MASK),
    );
    if (!v128.any_true(differs)) return true;
  }
  return false;
}
