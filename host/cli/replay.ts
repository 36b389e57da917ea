/** `flowplane replay`: files and flags in, the replay's report out. */

import { cpus } from "node:os";
import type { Worker } from "node:worker_threads";
import { createCapture, openCapture } from "../capture/file.ts";
import { createSyncOutput } from "../capture/output.ts";
import type { CaptureReader } from "../capture/reader.ts";
import type { FrameSource } from "../capture/source.ts";
import { compileEngine } from "../engine/module.ts";
import { UsageError } from "../errors.ts";
import type { DecidedBatch } from "../replay/decider.ts";
import { DropsRecorder, MapRecorder, WriteRecorder } from "../replay/recorders.ts";
import { type Recorder, type ReplayOptions, replay } from "../replay/replay.ts";
import type { ReplayResult } from "../replay/result.ts";
import { isShareable } from "../replay/sizes.ts";
import { jsonReport } from "../report/json.ts";
import { textReport } from "../report/text.ts";
import { count, counted, dataSize } from "../report/units.ts";
import { defaultScenario, type Scenario } from "../scenario/scenario.ts";
import { checkOutputs, checkWritable, isStream, uncompressedSize, writeText } from "./files.ts";
import { packageVersion, type ReplayFlags } from "./program.ts";
import { Terminal } from "./terminal.ts";
import { configuredWorld } from "./world.ts";

/**
 * `threads` are those hired for the workers, none where one worker does.
 * @throws {FlowplaneError} also after the report, when the capture broke off
 */
export async function runReplay(
  capture: string,
  flags: ReplayFlags,
  threads: readonly Worker[],
): Promise<void> {
  const { config, write, map, drops, html } = flags;
  if (flags.repeat > 1 && isReadOnce(capture)) {
    throw new UsageError(`--repeat: ${nameOf(capture)} can be read only once; save it to a file`);
  }
  checkOutputs(
    { capture, "--config": config },
    { "--write": write, "--map": map, "--drops": drops, "--html": html },
  );
  if (html !== undefined) checkWritable(html);
  const { scenario, network } = await worldOf(flags);
  if (network && flags.workers > 1) {
    throw new UsageError(`--workers: ${flags.workers} cannot share a network; it has one worker`);
  }
  const terminal = new Terminal(flags);
  const options: ReplayOptions = {
    file: nameOf(capture),
    scenario,
    open: (engine) => openCapture(capture, engine),
    recorders: recordersOf(flags),
    passes: flags.repeat,
    wantsTimeline: html !== undefined,
    machine: machine(),
  };
  if (network) options.network = network;
  if (flags.workers > 1) shareOut(options, capture, flags, threads);
  // What a pipe has been given cannot be taken back: with one, tables are large from the beginning.
  const canBeginAnew = ![write, map, drops].some(isStream);
  const captureBytes = canBeginAnew ? uncompressedSize(capture) : undefined;
  if (captureBytes !== undefined) options.captureBytes = captureBytes;
  if (flags.limit !== undefined) options.packetsMax = flags.limit;
  if (terminal.hasProgress) {
    options.onProgress = ({ pass, packets, bytes }) => {
      const of = flags.repeat > 1 ? `pass ${pass} of ${flags.repeat}: ` : "";
      terminal.progress(`${of}${counted(packets, "packet")}, ${dataSize(bytes)}`);
    };
  }
  const { result, timeline, failure } = await replay(options);
  try {
    if (html !== undefined && timeline) {
      const { htmlReport } = await import("../report/html.ts");
      const { readChartLibrary } = await import("../page/library.ts");
      writeText(html, htmlReport(result, timeline, readChartLibrary()));
    }
    for (const line of written(flags, result)) terminal.note(line);
  } finally {
    // Whatever becomes of the page, the result is there.
    terminal.result(flags.json ? jsonReport(result) : textReport(result));
  }
  if (failure) throw failure;
}

function nameOf(capture: string): string {
  return capture === "-" ? "standard input" : capture;
}

function isReadOnce(capture: string): boolean {
  return capture === "-" || isStream(capture);
}

/** Makes the replay that of several workers. */
function shareOut(
  options: ReplayOptions,
  capture: string,
  flags: ReplayFlags,
  threads: readonly Worker[],
): void {
  if (isReadOnce(capture)) {
    const name = nameOf(capture);
    throw new UsageError(
      `--workers: ${flags.workers} workers each read the capture; ${name} can be read only once`,
    );
  }
  const { scenario } = options;
  const isSpread = isShareable(scenario);
  if (!isSpread) {
    const note = "targets have ports of their own: one worker decides all frames";
    options.scenario = { ...scenario, notes: [...scenario.notes, note] };
  }
  let hired: readonly Worker[] | undefined = threads;
  options.team = async (task) => {
    const { startTeam } = await import("../replay/team.ts");
    const whole = {
      ...task,
      workers: flags.workers,
      file: capture,
      scenario,
      packetsMax: flags.limit ?? Number.POSITIVE_INFINITY,
      wantsFrames: flags.write !== undefined,
      isSpread,
      wasm: await compileEngine(),
    };
    // A replay that begins anew needs new ones.
    const team = startTeam(whole, hired);
    hired = undefined;
    return team;
  };
}

/** What the capture is replayed through. */
async function worldOf(
  flags: ReplayFlags,
): Promise<{ scenario: Scenario; network?: ReplayOptions["network"] }> {
  if (flags.config !== undefined) return configuredWorld(flags.config);
  const name = flags.scenario ?? "nat";
  if (flags.targets !== undefined && name === "nat") {
    throw new UsageError("--targets: the scenario nat has no targets; nlb and privatelink have");
  }
  return { scenario: defaultScenario(name, flags.targets) };
}

/** What writes frames: the capture's own writer stands last, as it takes their memory. */
function recordersOf({ map, drops, write }: ReplayFlags): NonNullable<ReplayOptions["recorders"]> {
  const makers: ((batch: DecidedBatch, source: FrameSource) => Recorder)[] = [];
  if (map) makers.push((batch) => new MapRecorder(batch, createSyncOutput(map)));
  if (drops) {
    makers.push((batch, source) => new DropsRecorder(batch, source, createSyncOutput(drops)));
  }
  if (write) {
    makers.push((batch, source) => {
      return new WriteRecorder(batch, source, createCapture(write, source as CaptureReader));
    });
  }
  return makers;
}

function written(flags: ReplayFlags, result: ReplayResult): string[] {
  const { packets, inserted } = result.output;
  const made = inserted.pp2 + inserted.rst + inserted.icmp;
  const lines: string[] = [];
  if (flags.write) lines.push(`wrote ${flags.write}: ${counted(packets, "packet")}`);
  if (flags.map)
    lines.push(`wrote ${flags.map}: ${counted(result.capture.packets + made, "line")}`);
  if (flags.drops) {
    lines.push(`wrote ${flags.drops}: ${count(result.capture.packets + made - packets)} dropped`);
  }
  if (flags.html) lines.push(`wrote ${flags.html}: the report with charts`);
  return lines;
}

function machine(): ReplayResult["machine"] {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? "unknown processor",
    cores: processors.length,
    node: process.versions.node,
    v8: process.versions.v8,
    flowplane: packageVersion(),
  };
}
