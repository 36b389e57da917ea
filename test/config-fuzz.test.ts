/**
 * Configurations with something wrong in them: values of other keys, numbers beyond their range,
 * parts missing or twice. Each is refused in one line that names the file and a path, or it holds:
 * then a capture runs through it to its end. FUZZ_RUNS sets the number of runs (default 800).
 */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { openBytes } from "../host/capture/memory.ts";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork, type NetworkConfig } from "../host/config/schema.ts";
import { ConfigError } from "../host/errors.ts";
import { replay } from "../host/replay/replay.ts";
import { type NetworkScenario, networkScenario } from "../host/scenario/network.ts";

const numRuns = Number(process.env.FUZZ_RUNS ?? 800);
const FIXTURES = new URL("../fixtures/", import.meta.url);
const STORIES = ["nlb", "nat", "privatelink", "overlap", "draining"].map((name) => {
  return {
    config: parse(readFileSync(new URL(`networks/${name}.yaml`, FIXTURES), "utf8")) as unknown,
    capture: readFileSync(new URL(`captures/network-${name}.pcap`, FIXTURES)),
  };
});
const MACHINE = { cpu: "test", cores: 1, node: "0", v8: "0", flowplane: "0" };
const ODD = [
  null,
  true,
  0,
  -1,
  1.5,
  65_536,
  1e9,
  "",
  "x",
  "0.0.0.0/0",
  "::1",
  "fd00::/8",
  "constructor",
  [],
  {},
];

type Group = Record<string, unknown>;
/** A value inside a configuration, by where it hangs. */
interface Place {
  group: Group;
  key: string;
}

function* placesIn(value: unknown): Generator<Place> {
  if (typeof value !== "object" || value === null) return;
  for (const key of Object.keys(value)) {
    yield { group: value as Group, key };
    yield* placesIn((value as Group)[key]);
  }
}

const damage = fc.record({
  kind: fc.constantFrom("same key", "same type", "number", "turn", "odd", "without", "twice"),
  at: fc.nat(),
  other: fc.nat(),
});
type Damage = typeof damage extends fc.Arbitrary<infer D> ? D : never;

/** One thing wrong with `config`, or nothing where the kind of damage finds no place. */
function spoil(config: unknown, { kind, at, other }: Damage) {
  const type = { number: "number", turn: "boolean" }[kind as string];
  const places = [...placesIn(config)].filter(({ group, key }) => {
    return type === undefined || typeof group[key] === type;
  });
  const place = places[at % Math.max(1, places.length)];
  if (!place) return;
  const { group, key } = place;
  const value = group[key];
  const pick = (from: readonly unknown[]) => structuredClone(from[other % from.length]);
  switch (kind) {
    case "number":
      group[key] = pick([Number(value) + 1, Number(value) - 1, Number(value) * 2, 0, 1, 65_535]);
      break;
    case "turn":
      group[key] = !value;
      break;
    case "odd":
      group[key] = pick(ODD);
      break;
    case "without":
      if (Array.isArray(group)) group.splice(Number(key), 1);
      else delete group[key];
      break;
    case "twice":
      if (Array.isArray(group)) group.push(structuredClone(value));
      else group[`${key}-2`] = structuredClone(value);
      break;
    default: {
      const all = STORIES.flatMap((story) => [...placesIn(story.config)]);
      const fitting = all.filter((one) => {
        return kind === "same key" ? one.key === key : typeof one.group[one.key] === typeof value;
      });
      const taken = fitting[other % fitting.length] as Place;
      group[key] = structuredClone(taken.group[taken.key]);
    }
  }
}

/** The network, or undefined for one that was refused as it must be. */
function networkOf(text: string): ReturnType<typeof networkScenario> | undefined {
  try {
    const config = parseConfig(text, "net.yaml");
    return networkScenario(config as NetworkConfig, "net.yaml");
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    expect(error.message).toMatch(/^net\.yaml(:\d+)?: [^\n]{1,900}$/);
    return undefined;
  }
}

/** Sends a story's capture through a network to its end. */
async function runThrough(found: NetworkScenario, capture: Uint8Array): Promise<void> {
  const { result } = await replay({
    file: "net.pcap",
    scenario: found.scenario,
    network: found.network,
    open: (engine) => openBytes(capture, engine, { name: "net.pcap" }),
    machine: MACHINE,
  });
  const verdicts = Object.values(result.verdicts).reduce((sum, count) => sum + count, 0);
  expect(verdicts).toBe(result.capture.packets);
}

test("a spoilt configuration is refused in one line or holds", { timeout: 600_000 }, async () => {
  let [refused, held] = [0, 0];
  const property = fc.asyncProperty(
    fc.constantFrom(...STORIES),
    fc.array(damage, { minLength: 1, maxLength: 3 }),
    async (story, damages) => {
      const config = structuredClone(story.config);
      for (const one of damages) spoil(config, one);
      if (!isNetwork(config as NetworkConfig)) return;
      const found = networkOf(stringify(config));
      if (!found) {
        refused++;
        return;
      }
      await runThrough(found, story.capture);
      held++;
    },
  );
  await fc.assert(property, { numRuns, seed: 20_261 });
  // Damage that is always refused, or never, would test only half of this.
  expect(refused).toBeGreaterThan(numRuns / 4);
  expect(held).toBeGreaterThan(numRuns / 20);
});

test("what every object of JavaScript has is no name of the file's", async () => {
  let refused = 0;
  for (const { config, capture } of STORIES) {
    const count = [...placesIn(config)].length;
    for (let at = 0; at < count; at++) {
      const other = structuredClone(config);
      const { group, key } = [...placesIn(other)][at] as Place;
      if (typeof group[key] !== "string") continue;
      group[key] = "constructor";
      const found = networkOf(stringify(other));
      if (found) await runThrough(found, capture);
      else refused++;
    }
  }
  expect(refused).toBeGreaterThan(50);
});
