/**
 * All commands with their options and their help: this file is the one place where they are
 * described. What a command does is loaded when it runs, so that `--help` and errors are quick.
 */

import { readFileSync } from "node:fs";
import { Command, Option } from "commander";
import { UsageError } from "../errors.ts";
import { labCommand } from "./lab-commands.ts";
import { type CommonOptions, integer, noSuchCommand, withCommonOptions } from "./options.ts";

export type { CommonOptions } from "./options.ts";

/** As many as there are shards (assembly/capture/select). */
const WORKER_COUNT_MAX = 64;

export interface ReplayFlags extends CommonOptions {
  config?: string;
  scenario?: "nat" | "nlb" | "privatelink";
  targets?: number;
  write?: string;
  map?: string;
  drops?: string;
  json?: boolean;
  html?: string;
  repeat: number;
  workers: number;
  limit?: number;
}

export interface FlowsFlags extends CommonOptions {
  json?: boolean;
  limit?: number;
}

export interface ExplainFlags extends CommonOptions {
  packet?: number;
  tuple?: string;
  vpc?: string;
  config?: string;
  scenario?: "nat" | "nlb" | "privatelink";
  json?: boolean;
}

export interface BenchFlags extends CommonOptions {
  json?: boolean;
  smoke?: boolean;
  full?: boolean;
  part?: BenchPart[];
  flows?: number;
  html?: string;
}

/** What `flowplane bench` measures: the engine, and what is asked for by name. */
export type BenchPart = "engine" | "workers" | "latency" | "flows" | "compact";

export interface ShardFlags extends CommonOptions {
  nodes: number;
  size: number;
  zones: number;
  overlapMax?: number;
  infima?: bigint;
  secret: string;
  tenants: number;
  deck?: boolean;
  json?: boolean;
  html?: string;
}

export interface Pp2EncodeFlags extends CommonOptions {
  source?: string;
  destination?: string;
  vpce?: string;
  tlv: string[];
  udp?: boolean;
  local?: boolean;
  pad: number;
  hex?: boolean;
}

export interface Pp2DecodeFlags extends CommonOptions {
  json?: boolean;
}

export interface SimulateFlags extends CommonOptions {
  nodes: number;
  tenants: number;
  size: number;
  flows: number;
  tuples: number;
  seconds: number;
  loss: number;
  crashes: number;
  partitions: number;
  plain?: boolean;
  poison?: boolean;
  seed: string;
  json?: boolean;
}

/** A fresh command line that reports through exceptions and never ends the process. */
export function commandLine(): Command {
  const program = new Command("flowplane")
    .description("The L4 flow engine behind load balancers, NAT gateways and private endpoints.")
    .version(packageVersion(), "-V, --version", "print the version")
    .helpCommand("help [command]", "print help for a command")
    .addHelpText("after", EXIT_STATUS);
  program.addCommand(replayCommand());
  program.addCommand(flowsCommand());
  program.addCommand(explainCommand());
  program.addCommand(shardCommand());
  program.addCommand(simulateCommand());
  program.addCommand(pp2Command());
  program.addCommand(labCommand());
  program.addCommand(benchCommand());
  for (const command of withSubcommands(program)) {
    command
      .helpOption("-h, --help", "print this help")
      .exitOverride()
      .configureOutput({ writeErr: () => undefined })
      .configureHelp({ helpWidth: 100, ...(command.name() === "lab" && NAMES_ALONE) });
  }
  return program;
}

/** The command and all commands below it. */
export function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}

function replayCommand(): Command {
  const command = new Command("replay")
    .description("run a capture through the engine, as fast as it can, and report")
    .argument("<capture>", "pcap or pcapng file, gzip or not; - is standard input")
    .addOption(
      new Option("-s, --scenario <name>", "what stands between clients and services (default: nat)")
        .choices(["nat", "nlb", "privatelink"])
        .conflicts("config"),
    )
    .addOption(
      new Option("-t, --targets <n>", "targets of the scenarios nlb and privatelink (default: 4)")
        .argParser(integer("--targets", 1, 1000))
        .conflicts("config"),
    )
    .option("-c, --config <file>", "scenario, addresses, targets and time-outs (YAML or JSON)")
    .option("-w, --write <file>", "write the output frames, in the capture's own format")
    .option("--map <file>", "write input record number, output record number and verdict (TSV)")
    .option("--drops <file>", "write dropped packets, each with its verdict (pcapng)")
    .option("--html <file>", "write the report as one web page with charts")
    .addOption(
      new Option("-r, --repeat <n>", "passes: the first one is cold, the others are warm")
        .argParser(integer("--repeat", 1, 1_000_000))
        .default(1),
    )
    .addOption(
      new Option("--workers <n>", "worker threads that share the capture, each with its own engine")
        .argParser(integer("--workers", 1, WORKER_COUNT_MAX))
        .default(1),
    )
    .addOption(
      new Option("-l, --limit <n>", "stop after so many packets").argParser(
        integer("--limit", 1, Number.MAX_SAFE_INTEGER),
      ),
    )
    .option("--json", "print the report as JSON (schema flowplane.replay/1)");
  return withCommonOptions(command).action(async (capture: string, flags: ReplayFlags) => {
    // Workers begin while the rest of the command is still being loaded.
    const { hireThreads } = await import("../replay/hiring.ts");
    const threads = flags.workers > 1 ? hireThreads(flags.workers) : [];
    const { runReplay } = await import("./replay.ts");
    await runReplay(capture, flags, threads);
  });
}

function flowsCommand(): Command {
  const command = new Command("flows")
    .description("list the conversations of a capture: one row per bidirectional 5-tuple and VLAN")
    .argument("<capture>", "pcap or pcapng file, gzip or not; - is standard input")
    .addOption(
      new Option("-l, --limit <n>", "stop after so many packets").argParser(
        integer("--limit", 1, Number.MAX_SAFE_INTEGER),
      ),
    )
    .option("--json", "print the table as JSON (schema flowplane.flows/1)");
  return withCommonOptions(command).action(async (capture: string, flags: FlowsFlags) => {
    const { runFlows } = await import("./flows.ts");
    await runFlows(capture, flags);
  });
}

function explainCommand(): Command {
  const command = new Command("explain")
    .description("say every decision that the engine takes on one packet, and why")
    .argument("[capture]", "pcap or pcapng file, gzip or not; - is standard input")
    .addOption(
      new Option("-p, --packet <n>", "number of the packet in the capture, from 1").argParser(
        integer("--packet", 1, Number.MAX_SAFE_INTEGER),
      ),
    )
    .option(
      "--tuple <text>",
      'a packet that would begin a flow, after the capture if there is one: "tcp 10.0.0.1:5000 10.0.0.2:80"',
    )
    .option("--vpc <name>", "with --tuple: the VPC that it comes from (default: the first one)")
    .option("-c, --config <file>", "scenario or network (YAML or JSON)")
    .addOption(
      new Option("-s, --scenario <name>", "what stands between clients and services (default: nat)")
        .choices(["nat", "nlb", "privatelink"])
        .conflicts("config"),
    )
    .option("--json", "print the explanation as JSON (schema flowplane.explain/1)");
  return withCommonOptions(command).action(
    async (capture: string | undefined, flags: ExplainFlags) => {
      const { runExplain } = await import("./explain.ts");
      await runExplain(capture, flags);
    },
  );
}

function shardCommand(): Command {
  const command = new Command("shard")
    .description("calculate shuffle sharding: overlaps, tenants' nodes and blast radius")
    .argument("[tenant...]", "names of tenants whose nodes are wanted")
    .addOption(
      new Option("-n, --nodes <n>", "nodes of the fleet")
        .argParser(integer("--nodes", 1, 65_536))
        .default(100),
    )
    .addOption(
      new Option("-k, --size <n>", "nodes of a shard")
        .argParser(integer("--size", 1, 64))
        .default(5),
    )
    .addOption(
      new Option("-z, --zones <n>", "zones, from each of which a shard takes the same number")
        .argParser(integer("--zones", 1, 64))
        .default(1),
    )
    .addOption(
      new Option(
        "-o, --overlap-max <n>",
        "let no two tenants share more nodes than this",
      ).argParser(integer("--overlap-max", 0, 63)),
    )
    .addOption(
      new Option("--infima <seed>", "give the shards that Infima gives with this seed")
        .argParser(signed("--infima"))
        .conflicts("overlapMax"),
    )
    .option("--secret <text>", "what shards are drawn with; keep it where it matters", "flowplane")
    .addOption(
      new Option("-t, --tenants <n>", "tenants of the simulated attack")
        .argParser(integer("--tenants", 2, 1_000_000))
        .default(1000),
    )
    .option("--deck", "add the three tables of the PrivateLink deck beside the exact numbers")
    .option("--html <file>", "write the report as one web page with drawings")
    .option("--json", "print the report as JSON (schema flowplane.shard/1)");
  return withCommonOptions(command).action(async (tenants: string[], flags: ShardFlags) => {
    const { runShard } = await import("./shard.ts");
    await runShard(tenants, flags);
  });
}

function simulateCommand(): Command {
  const option = (flags: string, text: string, max: number, preset: number, min = 1) => {
    const name = flags.match(/--[a-z-]+/)?.[0] ?? flags;
    return new Option(flags, text).argParser(integer(name, min, max)).default(preset);
  };
  const command = new Command("simulate")
    .description(
      "simulate a fleet of nodes that share decisions, with loss, partitions and crashes",
    )
    .addOption(option("-n, --nodes <n>", "nodes of the fleet", 10_000, 1000))
    .addOption(option("-t, --tenants <n>", "tenants", 10_000, 1000))
    .addOption(option("-k, --size <n>", "nodes of a tenant", 64, 5))
    .addOption(option("--flows <n>", "flows of each tenant", 1000, 3))
    .addOption(option("--tuples <n>", "translated tuples of each tenant", 60_000, 8))
    .addOption(option("--seconds <n>", "simulated time", 3600, 30))
    .addOption(option("--loss <n>", "packets and messages lost of a thousand", 500, 20, 0))
    .addOption(option("--crashes <n>", "crashes of a node in an hour", 3600, 30, 0))
    .addOption(option("--partitions <n>", "times an hour that a node loses the store", 3600, 30, 0))
    .option("--plain", "plain sharding: fixed groups of nodes instead of shuffled ones")
    .option("--poison", "let one tenant take its nodes down at half-time")
    .option("--seed <text>", "the same seed gives the same events", "flowplane")
    .option("--json", "print the result as JSON (schema flowplane.simulation/1)");
  return withCommonOptions(command).action(async (flags: SimulateFlags) => {
    const { runSimulate } = await import("./simulate.ts");
    await runSimulate(flags);
  });
}

function benchCommand(): Command {
  const command = new Command("bench")
    .description("run the canonical benchmark")
    .addOption(
      new Option(
        "--smoke",
        "a little of everything, within seconds: shows that it works",
      ).conflicts("full"),
    )
    .option("--full", "add a table of 50 M flows (4 GB of memory) and a capture of 1 GB")
    .addOption(
      new Option(
        "--part <name...>",
        "measure only these: the engine, workers, latency, as many flows as fit, compact flows",
      ).choices(["engine", "workers", "latency", "flows", "compact"]),
    )
    .addOption(
      new Option(
        "--flows <n>",
        "flows of the parts flows and compact, like 200M (default: what memory holds)",
      ).argParser(quantity("--flows", 1000, 1_000_000_000)),
    )
    .option("--html <file>", "write the results as one web page with charts")
    .option("--json", "print the results as JSON (schema flowplane.bench/1)");
  return withCommonOptions(command).action(async (flags: BenchFlags) => {
    const { runBench } = await import("./bench.ts");
    await runBench(flags);
  });
}

function pp2Command(): Command {
  return new Command("pp2")
    .description("write and read PROXY protocol v2 headers")
    .helpCommand(false)
    .addCommand(pp2EncodeCommand())
    .addCommand(pp2DecodeCommand())
    .allowExcessArguments()
    .action((_flags, group: Command) => {
      throw noSuchCommand(group);
    });
}

function pp2EncodeCommand(): Command {
  const command = new Command("encode")
    .description("write a header as AWS lays it out: CRC32C, endpoint id, TLVs, padding")
    .option("--source <ip:port>", "the client; an IPv6 address in brackets")
    .option("--destination <ip:port>", "what the client spoke to: load balancer or endpoint")
    .option("--vpce <id>", "endpoint id of PrivateLink (TLV 0xEA)")
    .addOption(
      new Option("--tlv <type=hex>", "a TLV, type as number or name; may be given several times")
        .argParser((word: string, before: string[]) => [...before, word])
        .default([], "none"),
    )
    .option("--udp", "the connection is UDP; without it TCP")
    .option("--local", "the sender speaks for itself, as in health checks: no addresses")
    .addOption(
      new Option("--pad <n>", "pad to so many bytes; 0 does not")
        .argParser(integer("--pad", 0, 1023))
        .default(100),
    )
    .option("--hex", "print hex digits instead of bytes");
  return withCommonOptions(command).action(async (flags: Pp2EncodeFlags) => {
    const { runEncode } = await import("./pp2.ts");
    await runEncode(flags);
  });
}

function pp2DecodeCommand(): Command {
  const command = new Command("decode")
    .description("read a header: every field and TLV named, CRC32C checked")
    .argument("<header>", "file of bytes or of hex digits, or hex digits; - is standard input")
    .option("--json", "print the header as JSON (schema flowplane.pp2/1)");
  return withCommonOptions(command).action(async (header: string, flags: Pp2DecodeFlags) => {
    const { runDecode } = await import("./pp2.ts");
    await runDecode(header, flags);
  });
}

/** Where commands have many arguments, each command's own help tells of them. */
const NAMES_ALONE = { subcommandTerm: (command: Command) => command.name() };

const EXIT_STATUS = `
Exit status: 0 done; 1 it could not be done; 2 the call or the configuration is wrong.`;

/** A seed of Java's: any integer of 64 bits. */
function signed(flag: string): (word: string) => bigint {
  return (word) => {
    if (!/^-?\d{1,19}$/.test(word) || BigInt.asIntN(64, BigInt(word)) !== BigInt(word)) {
      throw new UsageError(`${flag}: "${word}" is not an integer of 64 bits`);
    }
    return BigInt(word);
  };
}

/** A whole number, which may end in k or M. */
function quantity(flag: string, min: number, max: number): (word: string) => number {
  return (word) => {
    const [, digits = "", unit = ""] = /^(\d+)([kM]?)$/.exec(word) ?? [];
    const value = Number(digits) * (unit === "M" ? 1e6 : unit === "k" ? 1e3 : 1);
    if (digits === "" || value < min || value > max) {
      throw new UsageError(`${flag}: "${word}" is not a number from ${min} to ${max}`);
    }
    return value;
  };
}

/** The version in package.json, which lies above this file in the sources and in the package. */
export function packageVersion(): string {
  for (const above of ["../../", "../../../"]) {
    try {
      const text = readFileSync(new URL(`${above}package.json`, import.meta.url), "utf8");
      const { name, version } = JSON.parse(text) as { name?: string; version?: string };
      if (name === "flowplane" && version) return version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  return "unknown";
}
