/**
 * What only a fresh process can tell, as one line of JSON.
 *   first [cold]: cost of the first batches, of later ones, and of later ones with empty caches,
 *                 warmed up or not
 *   heap PACKETS: growth of the JavaScript heap while PACKETS packets go through (--expose-gc)
 */
import { sampleOf } from "./measure.ts";
import { BATCH, FOREVER_MS, Traffic } from "./traffic.ts";

const FLOWS = 1024;
/** More than all caches of a core hold. */
const ELSEWHERE_BYTES = 64 << 20;

/**
 * The life of 1,024 flows, their making and 32 batches of traffic, again and again over an empty
 * table: the first life in the process, what it costs later, and what it costs when the caches hold
 * nothing of it, as they do when a process begins. All three follow each other within a fifth of a
 * second, for a machine that others share has slow spells. Generation is not timed.
 */
async function first(warmUp: boolean): Promise<void> {
  const traffic = await Traffic.create({ flows: FLOWS, warmUp });
  const { engine, bench } = traffic;
  // The clock itself is warm: what is measured is the engine. No closure is called between its two
  // looks: V8 would have inlined the one that warmed it, and give that up in the first batch (30 us).
  for (let index = 0, start = 0; index < 20_000; index++) start = performance.now() - start;
  const life = () => {
    for (let flow = 0; flow < FLOWS; flow += BATCH) {
      traffic.generateNew(BATCH, flow);
      engine.process(BATCH);
    }
    bench.generatorSeed(3);
    let ms = 0;
    for (let batch = 0; batch < 32; batch++) {
      traffic.generate(BATCH);
      const start = performance.now();
      engine.process(BATCH);
      ms += performance.now() - start;
    }
    if (engine.exports.expire(FOREVER_MS, 0, engine.exports.groupCount()) !== FLOWS)
      throw new Error("first: a flow is missing");
    return (ms * 1e6) / 32 / BATCH;
  };
  const lives = (count: number, prepare?: () => void) =>
    Array.from({ length: count }, () => {
      prepare?.();
      return life();
    });
  const firstNs = life();
  lives(40);
  const elsewhere = new Uint8Array(ELSEWHERE_BYTES);
  const emptiedNs = sampleOf(lives(9, () => walk(elsewhere))).median;
  const laterNs = sampleOf(lives(15)).median;
  process.stdout.write(`${JSON.stringify({ firstNs, laterNs, emptiedNs })}\n`);
}

/** Writes to every line of other memory. */
function walk(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 64) bytes[at] = (bytes[at] as number) + 1;
}

async function heap(packets: number): Promise<void> {
  const { gc } = globalThis as { gc?: () => void };
  if (!gc) throw new Error("heap: start with --expose-gc");
  const traffic = await Traffic.create({ flows: FLOWS });
  traffic.create();
  const run = (count: number) => {
    for (let done = 0; done < count; done += BATCH) {
      traffic.generate(BATCH);
      traffic.engine.process(BATCH);
    }
  };
  const used = () => {
    gc();
    gc();
    const { heapUsed, external, arrayBuffers } = process.memoryUsage();
    return { heapUsed, external, arrayBuffers };
  };
  run(packets / 10);
  const before = used();
  run(packets);
  const after = used();
  const counters = traffic.engine.counters().verdicts;
  const growthBytes = after.heapUsed - before.heapUsed;
  const externalBytes = after.external - before.external;
  const forwarded = counters.forward;
  process.stdout.write(`${JSON.stringify({ packets, growthBytes, externalBytes, forwarded })}\n`);
}

const [what, word] = process.argv.slice(2);
if (what === "first") await first(word !== "cold");
else if (what === "heap") await heap(Number(word));
else throw new Error(`child: ${what} is not first or heap`);
