/**
 * What workers have decided, gathered into one order: the host's side of assembly/gather.ts. Each
 * worker has a stage in the arena, onto which its ring is emptied piece by piece.
 */
import type { Region } from "./api.ts";
import type { Engine } from "./engine.ts";
import type { EngineExports } from "./module.ts";

/** Room on a stage: the decisions of 16,384 frames, or more than the longest record. */
const STAGE_BYTES = 512 << 10;

export interface GatheringOptions {
  workers: number;
  /** Whether the batch's descriptors hold the records' frames, and are to be told. */
  describes: boolean;
  /** Whether decisions of frames that go out are followed by their bytes. */
  hasFrames: boolean;
  /** A part of the arena for stages and, behind them, frames that do not fit their records. */
  region: Region;
}

/** Bytes that the stages of so many workers take. */
export function stagesBytes(workers: number): number {
  return workers * STAGE_BYTES;
}

/** A stage, and how far it is filled. */
interface Stage {
  start: number;
  end: number;
}

export class Gathering {
  /** Records gathered so far. */
  records = 0;
  readonly #exports: EngineExports;
  readonly #bytes: Uint8Array;
  readonly #region: Region;
  readonly #stages: Stage[];

  constructor(engine: Engine, { workers, describes, hasFrames, region }: GatheringOptions) {
    this.#exports = engine.exports;
    this.#bytes = engine.bytes;
    this.#region = region;
    this.#stages = Array.from({ length: workers }, (_, worker) => {
      const start = region.address + worker * STAGE_BYTES;
      return { start, end: start };
    });
    engine.exports.beginGathering(workers, describes ? 1 : 0, hasFrames ? 1 : 0);
    for (const [worker, { start }] of this.#stages.entries()) {
      engine.exports.setTold(worker, start, start);
    }
    this.begin();
  }

  /** Begins a batch: what was described of the one before is over. */
  begin(): void {
    const { address, bytes } = this.#region;
    this.#exports.beginGathered(address + stagesBytes(this.#stages.length), address + bytes);
  }

  /**
   * Lets `fill` write what a worker has told behind what was not gathered of it yet; it returns how
   * many bytes. Returns that as well.
   */
  add(worker: number, fill: (room: Uint8Array) => number): number {
    const stage = this.#stages[worker] as Stage;
    const next = this.#exports.toldFrom(worker) >>> 0;
    const left = stage.end - next;
    if (left === STAGE_BYTES) return 0;
    if (next !== stage.start) this.#bytes.copyWithin(stage.start, next, stage.end);
    const end = stage.start + left;
    const added = fill(this.#bytes.subarray(end, stage.start + STAGE_BYTES));
    stage.end = end + added;
    this.#exports.setTold(worker, stage.start, stage.end);
    return added;
  }

  /**
   * Gathers up to `count` records, the first of which is descriptor `index` of the batch. Returns how
   * many: fewer when a record's decisions are not all there.
   */
  gather(index: number, count: number): number {
    const gathered = this.#exports.gather(this.records % 2 ** 32, index, count) >>> 0;
    this.records += gathered;
    return gathered;
  }

  /** Flows active and created, as of the last record that was gathered; the most active at once. */
  get flows(): { active: number; activeMax: number; created: number } {
    return {
      active: this.#exports.gatheredActive() >>> 0,
      activeMax: this.#exports.gatheredActiveMax() >>> 0,
      created: this.#exports.gatheredCreated() >>> 0,
    };
  }

  /** Emitted frames of this batch. */
  get emitCount(): number {
    return this.#exports.gatheredEmits();
  }

  /** Digest of all frames gathered so far that go out. */
  get digest(): bigint {
    return BigInt.asUintN(64, this.#exports.gatheredDigest());
  }
}
