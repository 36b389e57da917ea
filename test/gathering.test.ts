/**
 * Decisions of several workers, gathered into the order of records, in whatever pieces they come:
 * against a twin that simply goes through the records.
 */
import { test as property } from "@fast-check/vitest";
import fc from "fast-check";
import { describe, expect } from "vitest";
import * as abi from "../assembly/abi.ts";
import { createEngine } from "../host/engine/engine.ts";
import { Gathering, stagesBytes } from "../host/engine/gathering.ts";
import { xxh64 } from "./reference/xxh64.ts";

/** What became of one record. */
interface Decided {
  owner: number;
  /** Lengths before and after the engine, and whether the frame goes out. */
  bytes: number;
  bytesAfter: number;
  isOut: boolean;
  /** Lengths of frames that were emitted before and after it. */
  emitted: { isAfter: boolean; bytes: number }[];
}

const length = fc.integer({ min: 1, max: 200 });
const records = fc.array(
  fc.record({
    owner: fc.nat(6),
    bytes: length,
    bytesAfter: length,
    isMoved: fc.boolean(),
    isOut: fc.boolean(),
    before: fc.option(length),
    after: fc.option(length),
  }),
  { minLength: 1, maxLength: 600 },
);

/** A frame's bytes: all that matters is that no two are alike. */
function frameOf(record: number, part: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, at) => record * 31 + part * 7 + at * at);
}

function hashOf(frame: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, xxh64(frame, 0n), true);
  return bytes;
}

/** Frames that leave because of a record, in order; what is dropped is undefined. */
function leavingOf(number: number, one: Decided) {
  const parts = [
    ...one.emitted.filter(({ isAfter }) => !isAfter),
    { isFrame: true, isAfter: false, bytes: one.bytesAfter },
    ...one.emitted.filter(({ isAfter }) => isAfter),
  ];
  return parts.map((part, index) => ({
    isEmitted: !("isFrame" in part),
    isAfter: part.isAfter,
    frame: "isFrame" in part && !one.isOut ? undefined : frameOf(number, index, part.bytes),
    bytes: part.bytes,
  }));
}

/** What a worker tells of a record: as listDecisions and the worker write it. */
function told(number: number, one: Decided, flows: number, hasFrames: boolean): Uint8Array[] {
  const parts = leavingOf(number, one);
  return parts.flatMap(({ isEmitted, isAfter, frame, bytes }, index) => {
    const decision = new Uint8Array(abi.DECISION_SIZE);
    const view = new DataView(decision.buffer);
    const kind = isEmitted ? 1 | (isAfter ? 0x10000 : 0) : frame ? 0 : 5;
    const marks =
      (isEmitted ? abi.DECISION_EMITTED : 0) + (index === parts.length - 1 ? abi.DECISION_LAST : 0);
    view.setUint32(abi.DECISION_RECORD, number, true);
    view.setUint32(abi.DECISION_VERDICT, kind + marks, true);
    view.setUint32(abi.DECISION_FLOW, number + 1, true);
    view.setUint32(abi.DECISION_ACTIVE, flows, true);
    view.setUint32(abi.DECISION_CREATED, flows * 2, true);
    view.setUint32(abi.DECISION_BYTES, bytes, true);
    if (!frame) return [decision];
    view.setBigUint64(abi.DECISION_HASH, xxh64(frame, 0n), true);
    if (!hasFrames) return [decision];
    const padded = new Uint8Array(Math.ceil(bytes / 32) * 32);
    padded.set(frame);
    return [decision, padded];
  });
}

/** Hands a worker's words out in pieces. */
class Told {
  #bytes: Uint8Array = new Uint8Array(0);

  add(parts: Uint8Array[]): void {
    this.#bytes = Buffer.concat([this.#bytes, ...parts]);
  }

  give(room: Uint8Array, most: number): number {
    const count = Math.min(this.#bytes.length, room.length, most);
    room.set(this.#bytes.subarray(0, count));
    this.#bytes = this.#bytes.subarray(count);
    return count;
  }
}

const engine = await createEngine({
  flowCountMax: 16,
  flow6CountMax: 16,
  arenaBytes: 16 << 20,
  warmUp: false,
});
const WORDS = abi.FRAME_BYTES / 4;

describe("decisions of workers", () => {
  property.prop(
    [records, fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 40 }), fc.boolean()],
    { numRuns: 60 },
  )("are gathered in the order of records", (drawn, workers, cells, hasFrames) => {
    const list = drawn.map(({ owner, before, after, isMoved, ...one }): Decided => {
      const emitted = [
        ...(before === null ? [] : [{ isAfter: false, bytes: before }]),
        ...(after === null ? [] : [{ isAfter: true, bytes: after }]),
      ];
      const bytesAfter = isMoved ? one.bytesAfter : one.bytes;
      return { ...one, owner: owner % workers, bytesAfter, emitted };
    });
    const region = engine.arena;
    const describes = true;
    const gathering = new Gathering(engine, { workers, describes, hasFrames, region });
    const voices = Array.from({ length: workers }, () => new Told());
    const flows = Array.from({ length: workers }, () => 0);
    let [digest, active, activeMax, taken] = [0n, 0, 0, 0];
    for (let first = 0; first < list.length; first += 50) {
      const batch = list.slice(first, first + 50);
      const frames = region.address + stagesBytes(workers) + (4 << 20);
      gathering.begin();
      batch.forEach((one, index) => {
        const number = first + index;
        flows[one.owner] = (number * 5) % 11;
        voices[one.owner]?.add(told(number, one, flows[one.owner] as number, hasFrames));
        active = flows.reduce((sum, count) => sum + count, 0);
        activeMax = Math.max(activeMax, active);
        const port = number & 0xff;
        const row = [frames + index * 256, one.bytes, number, port, 0, 0, 0, one.bytes + 9];
        engine.descriptors.set(row, index * WORDS);
        for (const { frame } of leavingOf(number, one)) {
          if (frame) digest = xxh64(hashOf(frame), digest);
        }
      });
      for (let index = 0; index < batch.length; ) {
        const gathered = gathering.gather(index, batch.length - index);
        index += gathered;
        taken += gathered;
        if (gathered > 0) continue;
        const added = voices.map((voice, worker) => {
          return gathering.add(worker, (room) => voice.give(room, cells * 32));
        });
        expect(Math.max(...added), `record ${first + index}`).toBeGreaterThan(0);
      }
      expect(gathering.records).toBe(taken);
      expectDescribed(batch, first, hasFrames, gathering.emitCount);
    }
    expect(gathering.gather(0, 1)).toBe(0);
    expect(gathering.digest).toBe(digest);
    expect(gathering.flows).toEqual({ active, activeMax, created: active * 2 });
  });
});

/** Holds descriptors and emitted frames of a batch against what they must be. */
function expectDescribed(batch: Decided[], first: number, hasFrames: boolean, made: number): void {
  const bytesOf = (address: number, bytes: number) => engine.bytes.slice(address, address + bytes);
  let emitted = 0;
  batch.forEach((one, index) => {
    const number = first + index;
    for (const { isEmitted, isAfter, frame, bytes } of leavingOf(number, one)) {
      const at = (isEmitted ? emitted++ : index) * WORDS;
      const row = (isEmitted ? engine.emits : engine.descriptors).subarray(at, at + WORDS);
      const [address = 0, captured, time, port, verdict, flow, cause, wire] = row;
      expect([captured, time, port, flow]).toEqual([bytes, number, number & 0xff, number + 1]);
      expect(verdict).toBe(isEmitted ? 1 | (isAfter ? 0x10000 : 0) : frame ? 0 : 5);
      if (isEmitted) expect(cause).toBe(index);
      expect(wire).toBe(isEmitted ? bytes : one.bytes + 9 + bytes - one.bytes);
      if (frame && hasFrames) expect(bytesOf(address, bytes)).toEqual(frame);
    }
  });
  expect(made).toBe(emitted);
}
