/**
 * What goes to the terminal beside the result: notes on stderr, and one line of progress that is
 * drawn over itself. Nothing of it with `--quiet`, and no progress unless stderr is a terminal that
 * can draw.
 */

import type { CommonOptions } from "./program.ts";

const ERASE_LINE = "\r\x1b[2K";

/** What can be done with a stream: draw over what is there, and colour it (https://no-color.org). */
export function abilitiesOf(
  { isTTY = false }: { isTTY?: boolean },
  { TERM, NO_COLOR }: NodeJS.ProcessEnv = process.env,
): { canDraw: boolean; hasColor: boolean } {
  const canDraw = isTTY && TERM !== "dumb";
  return { canDraw, hasColor: canDraw && !NO_COLOR };
}

export class Terminal {
  readonly #isQuiet: boolean;
  readonly #hasProgress: boolean;
  #isDrawn = false;

  constructor({ quiet }: CommonOptions) {
    this.#isQuiet = quiet ?? false;
    this.#hasProgress = !this.#isQuiet && abilitiesOf(process.stderr).canDraw;
  }

  /** Whether drawing progress does anything. */
  get hasProgress(): boolean {
    return this.#hasProgress;
  }

  progress(line: string): void {
    if (!this.#hasProgress) return;
    process.stderr.write(`${ERASE_LINE}${line}`);
    this.#isDrawn = true;
  }

  /** Says something that is not the result. */
  note(line: string): void {
    this.clear();
    if (!this.#isQuiet) process.stderr.write(`${line}\n`);
  }

  /** Prints the result. */
  result(text: string): void {
    this.clear();
    process.stdout.write(`${text}\n`);
  }

  clear(): void {
    if (this.#isDrawn) process.stderr.write(ERASE_LINE);
    this.#isDrawn = false;
  }
}
