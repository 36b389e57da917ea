#!/usr/bin/env node
/**
 * The command line. Results go to stdout, everything else to stderr; the exit status is 0 when
 * it is done, 1 when it could not be done, 2 when the call or the configuration is wrong. An
 * error is one line; `--debug` adds the stack trace.
 */

import { CommanderError } from "commander";
import { FlowplaneError } from "../errors.ts";
import { commandLine } from "./program.ts";

const HELP_CODES = new Set(["commander.help", "commander.helpDisplayed", "commander.version"]);

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // A reader that has seen enough (`| head`) is no error.
  if (error.code === "EPIPE") process.exit(0);
  process.stderr.write(`flowplane: standard output: ${error.message}\n`);
  process.exit(1);
});

process.exitCode = await run(process.argv.slice(2));

async function run(words: string[]): Promise<number> {
  try {
    // Without a command, help is what was asked for.
    await commandLine().parseAsync(words.length > 0 ? words : ["--help"], { from: "user" });
    return 0;
  } catch (error) {
    if (isHelp(error)) return 0;
    const { message, exitCode } = described(error);
    process.stderr.write(`flowplane: ${message}\n`);
    if (words.includes("--debug")) process.stderr.write(`${(error as Error).stack}\n`);
    return exitCode;
  }
}

function isHelp(error: unknown): boolean {
  return error instanceof CommanderError && HELP_CODES.has(error.code) && error.exitCode === 0;
}

function described(error: unknown): { message: string; exitCode: number } {
  if (error instanceof FlowplaneError) return error;
  if (error instanceof CommanderError) return { message: usageMessage(error), exitCode: 2 };
  const message = error instanceof Error ? error.message : String(error);
  return { message: `${oneLine(message)} (--debug shows where)`, exitCode: 1 };
}

/** Commander's sentence without its label; a suggestion on a second line joins the first. */
function usageMessage(error: CommanderError): string {
  // `help` for a command that there is not has no message of its own.
  if (HELP_CODES.has(error.code)) return "help: there is no such command";
  return oneLine(error.message.replace(/^error: /, ""));
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, " ");
}
