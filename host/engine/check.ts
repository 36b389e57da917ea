/**
 * Checks of what a program passes to the library. Each names the option, its value and what it may
 * be, and is done before anything is written: a call that throws has changed nothing.
 */

import { addressBytes } from "../address.ts";

/** A short form of any value for a message. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  return Array.isArray(value)
    ? "a list"
    : `an object of class ${value.constructor?.name ?? "none"}`;
}

/** @throws RangeError when `value` is not a whole number from `low` to `high` */
export function wholeNumber(name: string, value: unknown, low: number, high: number): number {
  if (Number.isInteger(value) && (value as number) >= low && (value as number) <= high) {
    return value as number;
  }
  throw new RangeError(`${name}: ${shown(value)} is not a whole number from ${low} to ${high}`);
}

/** What `names` has under `value`. @throws RangeError when that is none of its own names */
export function oneOf<T>(name: string, value: unknown, names: Readonly<Record<string, T>>): T {
  if (typeof value === "string" && Object.hasOwn(names, value)) return names[value] as T;
  throw new RangeError(`${name}: ${shown(value)} is not one of ${Object.keys(names).join(", ")}`);
}

/** @throws TypeError when `value` is not true or false */
export function truth(name: string, value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw new TypeError(`${name}: ${shown(value)} is not true or false`);
}

/** @throws TypeError when `value` is neither a function nor absent */
export function optionalFunction<T>(name: string, value: T): T {
  if (value === undefined || typeof value === "function") return value;
  throw new TypeError(`${name}: ${shown(value)} is not a function`);
}

/** @throws TypeError when `value` is not a list */
export function listOf<T>(name: string, value: readonly T[]): readonly T[] {
  if (Array.isArray(value)) return value;
  throw new TypeError(`${name}: ${shown(value)} is not a list`);
}

/** Every option of T, so that none can be forgotten here. */
export type OptionNames<T> = { readonly [Name in keyof Required<T>]: unknown };

/**
 * `value` as it is, once it is an object with no other keys than `names`. `path` stands before an
 * unknown key in the message.
 * @throws TypeError when it is not
 */
export function options<T extends object>(path: string, value: T, names: OptionNames<T>): T {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(`${path || "options"}: ${shown(value)} is not an object with options`);
  }
  for (const key of Object.keys(value)) {
    if (!Object.hasOwn(names, key)) {
      const place = path ? `${path}.${key}` : key;
      throw new TypeError(`${place}: no such option; there are ${Object.keys(names).join(", ")}`);
    }
  }
  return value;
}

/** The 4 or 16 bytes of an address in network order. @throws TypeError naming what is none */
export function addressOf(path: string, text: string): Uint8Array {
  if (typeof text !== "string") throw new TypeError(`${path}: ${shown(text)} is not text`);
  try {
    return addressBytes(text);
  } catch (error) {
    throw new TypeError(`${path}: ${(error as Error).message}`);
  }
}
