/** The simulation's result as text. */
import type { SimulationResult } from "../nodes/simulation.ts";
import { count, counted, duration, share } from "./units.ts";

export function simulationReport(result: SimulationResult): string {
  const { options, flows, packets, decisions, faults, decisionMs, blast, violations } = result;
  const milliseconds = (value: number) => duration(value / 1000);
  const lines = [
    `fleet       ${counted(options.nodes, "node")}, ${counted(options.tenants, "tenant")} on ` +
      `${count(options.shardSize)} each (${options.placement}); ${options.seconds} s, ` +
      `${counted(result.events, "event")} from seed "${options.seed}"`,
    `faults      ${counted(faults.crashes, "crash", "crashes")}, ` +
      `${counted(faults.partitions, "partition")}, ${share(options.loss, 1)} of all messages lost`,
    `flows       ${count(flows.begun)} begun, ${count(flows.established)} established, ` +
      `${count(flows.finished)} finished`,
    `packets     ${count(packets.sent)} sent (${count(packets.sentAgain)} exchanges again), ` +
      `${count(packets.forwarded)} forwarded`,
    `decisions   ${count(decisions.made)} made, ${count(decisions.adopted)} taken over by another ` +
      `node, ${counted(decisions.conflicts, "conflict")}, ${count(decisions.lost)} ended`,
    `first answer  p50 ${milliseconds(decisionMs.p50)}, p99 ${milliseconds(decisionMs.p99)}, ` +
      `max ${milliseconds(decisionMs.max)} of simulated time after a flow's first packet`,
  ];
  if (blast) {
    lines.push(
      `poison      ${count(blast.dead)} of ${counted(blast.tenants, "other tenant")} ` +
        `(${share(blast.dead, blast.tenants)}) got no answer from then on`,
    );
  }
  lines.push(
    `invariants  ${violations.length === 0 ? "all held" : "BROKEN"}: one decision a flow, one flow ` +
      "a tuple, every decision found again",
    ...violations.map((sentence) => `            ${sentence}`),
    `digest      ${result.digest}`,
  );
  return lines.join("\n");
}
