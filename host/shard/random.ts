/**
 * Random numbers from a secret: HMAC-SHA-512 in counter mode. Whoever does not know the secret can
 * foresee nothing, so nobody can choose a name that lands on another tenant's nodes; whoever does
 * gets the same numbers on every machine.
 */
import { createHmac } from "node:crypto";
import { shown } from "../engine/check.ts";

const BLOCK_WORDS = 16;

export class KeyedRandom {
  readonly #secret: string | Uint8Array;
  readonly #label: string;
  #block = Buffer.alloc(0);
  #blockCount = 0;
  #word = BLOCK_WORDS;

  /** Streams of different labels have nothing in common. @throws TypeError when there is no secret */
  constructor(secret: string | Uint8Array, label: string) {
    if (typeof secret !== "string" && !(secret instanceof Uint8Array)) {
      throw new TypeError(`secret: ${shown(secret)} is neither text nor a Uint8Array`);
    }
    this.#secret = secret;
    this.#label = label;
  }

  /** A whole number from 0 to `bound - 1`, each equally likely; `bound` is at most 2^32. */
  below(bound: number): number {
    const limit = 2 ** 32 - (2 ** 32 % bound);
    let word = this.#next();
    while (word >= limit) word = this.#next();
    return word % bound;
  }

  /** Puts `count` of the items, drawn at random, first (Fisher-Yates); returns them. */
  draw<T>(items: T[], count: number): T[] {
    for (let index = 0; index < count; index++) {
      const other = index + this.below(items.length - index);
      const item = items[index] as T;
      items[index] = items[other] as T;
      items[other] = item;
    }
    return items.slice(0, count);
  }

  #next(): number {
    if (this.#word === BLOCK_WORDS) {
      const hmac = createHmac("sha512", this.#secret);
      hmac.update(`${this.#blockCount++}:${this.#label}`);
      this.#block = hmac.digest();
      this.#word = 0;
    }
    return this.#block.readUInt32LE(4 * this.#word++);
  }
}
