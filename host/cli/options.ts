/** What several commands share: common options, and numbers in words. */

import type { Command } from "commander";
import { UsageError } from "../errors.ts";

export interface CommonOptions {
  quiet?: boolean;
  debug?: boolean;
}

export function withCommonOptions(command: Command): Command {
  return command
    .option("-q, --quiet", "print only the result")
    .option("--debug", "print the stack trace of an error");
}

/** Reads an integer in a range. @throws UsageError that names the flag and the range */
export function integer(flag: string, min: number, max: number): (word: string) => number {
  return (word) => {
    const value = Number(word);
    if (!/^\d+$/.test(word) || value < min || value > max) {
      // An end that nobody meets is only told to who has met it.
      const isOpen = max >= Number.MAX_SAFE_INTEGER && !(value > max);
      const range = isOpen ? `of at least ${min}` : `from ${min} to ${max}`;
      throw new UsageError(`${flag}: "${word}" is not an integer ${range}`);
    }
    return value;
  };
}

/** Why a command that only holds others cannot do what was asked for: with nothing, or with no name. */
export function noSuchCommand(group: Command): UsageError {
  const [word] = group.args;
  const names = group.commands.map((one) => one.name()).join(", ");
  if (word === undefined) return new UsageError(`${group.name()}: what to do is missing: ${names}`);
  return new UsageError(`${group.name()}: "${word}" is none of ${names}`);
}
