/** What runs both in Node and in a page: a capture's bytes through a NAT gateway. */
import { createEngine, openBytes } from "../../host/index.ts";

export interface Outcome {
  packets: number;
  verdicts: Record<string, number>;
  flows: number;
  digest: string;
}

export async function replayBytes(capture: Uint8Array): Promise<Outcome> {
  const engine = await createEngine({ seed: new Uint8Array(16), flowCountMax: 10_000 });
  engine.setService(0, { sourceAddresses: ["203.0.113.1", "2001:db8::1"], adopt: true });
  const source = await openBytes(capture, engine);
  let digest = 0n;
  for (let count = await source.next(); count > 0; count = await source.next()) {
    for (const [port, { link }] of source.interfaces.entries()) {
      if (link !== undefined) engine.setPort(port, { link, service: 0 });
    }
    engine.process(count);
    digest = engine.digest(digest);
  }
  source.close();
  const { verdicts, flows } = engine.counters();
  return { packets: source.packets, verdicts, flows: flows.created, digest: digest.toString(16) };
}

/** The page's side: fetches a capture and replays it. */
export async function replayUrl(url: string): Promise<Outcome> {
  const response = await fetch(url);
  return replayBytes(new Uint8Array(await response.arrayBuffer()));
}

Object.assign(globalThis, { replayUrl });
