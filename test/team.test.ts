/**
 * What a team says of its progress while nobody watches it: packets, bytes and flows must be of the same
 * instant, for whether tables are large enough is judged by them (sizes.ts).
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import { LINKTYPE, pcapFile } from "../fixtures/write.ts";
import { compileEngine } from "../host/engine/module.ts";
import { startTeam } from "../host/replay/team.ts";
import { defaultScenario } from "../host/scenario/scenario.ts";

const FLOWS = 60_000;
const FRAME_BYTES = 54;
const WORKERS = 3;
const BATCH = 256;
const folder = mkdtempSync(join(tmpdir(), "flowplane-team-"));

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** The opening of TCP connection number `flow`. */
function opening(flow: number): Uint8Array {
  const client = `10.0.${flow >> 8}.${flow & 255}`;
  return eth()
    .ipv4(client, "198.51.100.1")
    .tcp(1024 + (flow % 50_000), 443, { flags: "S" })
    .bytes();
}

test("packets, bytes and flows are of one instant", { timeout: 60_000 }, async () => {
  const file = join(folder, "openings.pcap");
  const records = Array.from({ length: FLOWS }, (_, flow) => {
    return { timeNs: BigInt(flow) * 1000n, bytes: opening(flow) };
  });
  writeFileSync(file, pcapFile(records, { linkType: LINKTYPE.ethernet }));
  const team = await startTeam({
    workers: WORKERS,
    file,
    scenario: defaultScenario("nat"),
    captureBytes: undefined,
    passes: 1,
    packetsMax: Number.POSITIVE_INFINITY,
    isWatched: false,
    wantsFrames: false,
    isSpread: true,
    warmUp: false,
    wasm: await compileEngine(),
  });
  try {
    team.begin();
    const told: { packets: number; bytes: number; flows: number }[] = [];
    const { capture } = await team.unwatched((packets, bytes) => {
      told.push({ packets, bytes, flows: team.batch.counters().flows.created });
    });
    // Every packet begins a flow, and each worker's are known as of its whole batches.
    for (const { packets, bytes, flows } of told) {
      expect(flows).toBeGreaterThanOrEqual(packets);
      expect(flows).toBeLessThanOrEqual(packets + WORKERS * BATCH);
      if (bytes > 0) expect(bytes).toBeCloseTo(packets * FRAME_BYTES, 3);
    }
    expect(told.length).toBeGreaterThan(1);
    expect(capture.packets).toBe(FLOWS);
    expect(team.batch.counters().flows.created).toBe(FLOWS);
  } finally {
    await team.stop();
  }
});
