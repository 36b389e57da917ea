/**
 * What only a fresh process can tell, as one line of JSON.
 *   first [cold]: cost of the first batches and of later ones, warmed up or not
 *   heap PACKETS: growth of the JavaScript heap while PACKETS packets go through (--expose-gc)
 */
import { sampleOf, timed } from "./measure.ts";
import { BATCH, Traffic } from "./traffic.ts";

const FLOWS = 1024;

/** Batches of established traffic, their generation not timed. */
async function first(warmUp: boolean): Promise<void> {
  const traffic = await Traffic.create({ flows: FLOWS, warmUp });
  for (let flow = 0; flow < FLOWS; flow += BATCH) {
    traffic.generateNew(BATCH, flow);
    traffic.engine.process(BATCH);
  }
  const window = () => {
    let ms = 0;
    for (let batch = 0; batch < 32; batch++) {
      traffic.generate(BATCH);
      ms += timed(() => traffic.engine.process(BATCH));
    }
    return (ms * 1e6) / 32 / BATCH;
  };
  const firstNs = window();
  for (let index = 0; index < 200; index++) window();
  const later = sampleOf(Array.from({ length: 25 }, window));
  process.stdout.write(`${JSON.stringify({ firstNs, laterNs: later.median })}\n`);
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
