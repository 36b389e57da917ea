/**
 * The commands of `flowplane lab` with their options and their help: a lab's life, looking at it,
 * and changing it while it runs. What a command does is in lab.ts, loaded when it runs.
 */

import { Command, Option } from "commander";
import { UsageError } from "../errors.ts";
import { type CommonOptions, integer, noSuchCommand, withCommonOptions } from "./options.ts";

export interface LabFlags extends CommonOptions {
  foreground?: boolean;
  capture?: string;
  json?: boolean;
  follow?: boolean;
  seconds?: number;
}

export interface CreateFlags extends CommonOptions {
  definition?: string;
}

export interface NameFlags extends CommonOptions {
  cname?: string;
  address?: string[];
  text?: string[];
}

const LAB = "name of a lab that is up, or its configuration file";
const TARGET = "address, or address:port; an IPv6 address with port in brackets";

type Act = (action: string, lab: string, given: object) => Promise<void>;
const act: Act = async (action, lab, given) =>
  (await import("./lab.ts")).runAction(action, lab, given);

export function labCommand(): Command {
  const command = new Command("lab")
    .description(
      "live labs: VPCs as network namespaces, with the engine between them (Linux, root)",
    )
    .helpCommand(false)
    .allowExcessArguments()
    .action((_flags, group: Command) => {
      throw noSuchCommand(group);
    });
  const all = [
    ...lifeCommands(),
    ...targetCommands(),
    ...endpointCommands(),
    ...gatewayCommands(),
    ...nameCommands(),
  ];
  for (const one of all) command.addCommand(withCommonOptions(one));
  return command;
}

function lifeCommands(): Command[] {
  return [
    new Command("up")
      .description("bring a lab up, and say what to type next")
      .argument("<file>", "configuration with a lab block (YAML or JSON)")
      .option("--foreground", "stay, print events as JSON lines, end with ctrl-C")
      .option("--capture <file>", "write what enters and leaves the engine (pcapng)")
      .action(async (file: string, flags: LabFlags) =>
        (await import("./lab.ts")).runUp(file, flags),
      ),
    new Command("down")
      .description("end a lab and remove all that it has made")
      .argument("<lab>", LAB)
      .action(async (lab: string, flags: LabFlags) =>
        (await import("./lab.ts")).runDown(lab, flags),
      ),
    new Command("status")
      .description("show hosts, targets with their health and why, endpoints, resources, traffic")
      .argument("<lab>", LAB)
      .option("--json", "print the state as JSON (schema flowplane.live/1)")
      .action(async (lab: string, flags: LabFlags) => {
        await (await import("./lab.ts")).runStatus(lab, flags);
      }),
    new Command("top")
      .description("watch a lab in the terminal; ctrl-C ends it")
      .argument("<lab>", LAB)
      .addOption(
        new Option("--seconds <n>", "end after so many seconds").argParser(
          integer("--seconds", 1, 86_400),
        ),
      )
      .action(async (lab: string, flags: LabFlags) =>
        (await import("./lab.ts")).runTop(lab, flags),
      ),
    new Command("events")
      .description("print the latest events of a lab as JSON lines")
      .argument("<lab>", LAB)
      .option("--follow", "go on with every new event until the lab ends")
      .action(async (lab: string, flags: LabFlags) => {
        await (await import("./lab.ts")).runEvents(lab, flags);
      }),
  ];
}

function targetCommands(): Command[] {
  const oneTarget = (name: string, description: string) =>
    new Command(name)
      .description(description)
      .argument("<lab>", LAB)
      .argument("<group>", "target group")
      .argument("<target>", TARGET);
  return [
    oneTarget("register", "register a target; health checks decide when it gets flows").action(
      (lab: string, group: string, target: string) =>
        act("register", lab, { target_group: group, ...targetOf(target) }),
    ),
    oneTarget("deregister", "deregister a target: it drains, then it is gone").action(
      (lab: string, group: string, target: string) =>
        act("deregister", lab, { target_group: group, ...targetOf(target) }),
    ),
    new Command("weight")
      .description("change the weight of a target group in a listener; 0 sends it nothing more")
      .argument("<lab>", LAB)
      .argument("<load-balancer>", "load balancer")
      .argument("<listener>", "such as TCP:80")
      .argument("<group>", "target group")
      .argument("<weight>", "0 to 999", integer("weight", 0, 999))
      .action((lab: string, balancer: string, listener: string, group: string, weight: number) => {
        const [protocol = "", port = ""] = listener.split(":");
        return act("weight", lab, {
          load_balancer: balancer,
          protocol,
          port: Number(port),
          target_group: group,
          weight,
        });
      }),
  ];
}

function endpointCommands(): Command[] {
  const step = (name: string, description: string) =>
    new Command(name)
      .description(description)
      .argument("<lab>", LAB)
      .argument("<endpoint>", "id of the endpoint")
      .action((lab: string, endpoint: string) => act(name, lab, { endpoint }));
  return [
    new Command("create")
      .description("create an endpoint: one of the file that does not exist yet, or a new one")
      .argument("<lab>", LAB)
      .argument("<endpoint>", "id of the endpoint")
      .option("--definition <json>", "a new one's keys, as below endpoints in the file")
      .action((lab: string, endpoint: string, { definition }: CreateFlags) => {
        return act("create", lab, { endpoint, ...definitionOf(definition) });
      }),
    step("accept", "accept an endpoint's connection, as its service's owner"),
    step("reject", "reject an endpoint's connection, as its service's owner"),
    step("delete", "delete an endpoint, as its consumer"),
    new Command("policy")
      .description("replace an endpoint's policy; without a document, everything is allowed")
      .argument("<lab>", LAB)
      .argument("<endpoint>", "id of the endpoint, or of the gateway endpoint")
      .argument("[document]", "a policy document, JSON")
      .action((lab: string, endpoint: string, document?: string) => {
        return act("policy", lab, { endpoint, ...(document !== undefined && { document }) });
      }),
    new Command("verify")
      .description("look for the TXT record that proves a service's private DNS name")
      .argument("<lab>", LAB)
      .argument("<service>", "id of the endpoint service")
      .action((lab: string, service: string) => act("verify", lab, { service })),
  ];
}

function gatewayCommands(): Command[] {
  const change = (name: string, description: string) =>
    new Command(name)
      .description(description)
      .argument("<lab>", LAB)
      .argument("<nat-gateway>", "NAT gateway")
      .argument("<address>", "IPv4 address")
      .action((lab: string, gateway: string, address: string) => {
        return act(name, lab, { nat_gateway: gateway, address });
      });
  return [
    change("associate", "give a NAT gateway one more address"),
    change("disassociate", "take an address from a NAT gateway: it drains, then it is released"),
  ];
}

function nameCommands(): Command[] {
  const collect = (word: string, before: string[] = []) => [...before, word];
  return [
    new Command("dns-set")
      .description("set a name in a DNS zone of the lab's own")
      .argument("<lab>", LAB)
      .argument("<zone>", "such as example.com")
      .argument("<name>", "in the zone; @ is the zone itself, * a wildcard")
      .option("--cname <name>", "an alias for this name")
      .option("--address <address>", "an address; may be given several times", collect)
      .option("--text <text>", "a text; may be given several times", collect)
      .action((lab: string, zone: string, name: string, flags: NameFlags) => {
        const { cname, address: addresses, text: texts } = flags;
        if (!cname && !addresses && !texts) {
          throw new UsageError("dns-set: one of --cname, --address and --text is missing");
        }
        return act("dns-set", lab, { zone, name, cname, addresses, texts });
      }),
    new Command("dns-unset")
      .description("remove a name from a DNS zone of the lab's own")
      .argument("<lab>", LAB)
      .argument("<zone>", "such as example.com")
      .argument("<name>", "in the zone")
      .action((lab: string, zone: string, name: string) => act("dns-unset", lab, { zone, name })),
  ];
}

/** Address and port of a target as they are typed. */
function targetOf(word: string): { target: string; port?: number } {
  const [, six, four, port] = /^(?:\[(.+)\]|([\d.]+)):(\d{1,5})$/.exec(word) ?? [];
  const target = six ?? four;
  return target === undefined ? { target: word } : { target, port: Number(port) };
}

function definitionOf(text: string | undefined): object {
  if (text === undefined) return {};
  try {
    return JSON.parse(text) as object;
  } catch (error) {
    throw new UsageError(`--definition: is not JSON: ${(error as Error).message}`);
  }
}
