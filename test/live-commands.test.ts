/**
 * What people say to a lab that is up: right, wrong, and in an order that nobody has planned. The lab
 * answers with a sentence and lives on.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { requireLab } from "./lab-harness.ts";
import { closers, endWorlds, World } from "./live-world.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));
afterEach(endWorlds);

const SERVICE = "vpce-svc-0123456789abcdef0";
const GREEN = "vpce-09ee0000000000002";

describe("endpoints that are not in the file", { timeout: 60_000 }, () => {
  const definition = {
    service: SERVICE,
    vpc: "green",
    subnets: { "green-a": { address: "10.0.1.60" } },
  };
  const [first, second] = ["vpce-0c0ffee0000000001", "vpce-0c0ffee0000000002"];
  const states = async (w: World) => {
    const { endpoints } = await w.live.snapshot();
    return Object.fromEntries(endpoints.map(({ id, state }) => [id, state]));
  };

  test("come with their definition, and leave their addresses when they go", async () => {
    const w = await World.up("privatelink");
    await w.say("create", { endpoint: first, ...definition });
    expect((await states(w))[first]).toBe("pendingAcceptance");
    await expect(w.say("create", { endpoint: second, ...definition })).rejects.toThrow(
      `endpoints.${second}.subnets.green-a.address: "10.0.1.60" is also at endpoints.${first}`,
    );
    await w.say("delete", { endpoint: first });
    await w.say("create", { endpoint: second, ...definition });
    expect(await states(w)).toMatchObject({ [first]: "deleted", [second]: "pendingAcceptance" });
  });

  test("leave nothing when their principal is not let in", async () => {
    const w = await World.up("privatelink", [
      ['allowed_principals: ["*"]', 'allowed_principals: ["arn:aws:iam::222222222222:root"]'],
      ["    private_dns_enabled: true\n\n", "    principal: arn:aws:iam::222222222222:root\n\n"],
    ]);
    const asked = { endpoint: first, ...definition };
    for (const _ of ["once", "again"]) {
      await expect(w.say("create", asked)).rejects.toThrow(
        `endpoints.${first}: arn:aws:iam::333333333333:root is not among the allowed_principals`,
      );
    }
    await w.say("create", { ...asked, principal: "arn:aws:iam::222222222222:root" });
    expect((await states(w))[first]).toBe("pendingAcceptance");
  });
});

describe("names of one's own", { timeout: 60_000 }, () => {
  test("stand back where a resource has the same", async ({ skip }) => {
    requireTool("dig", skip);
    const w = await World.up("privatelink", [
      ["supercoolservice.com: []", "api.example.com: [{ name: '@', addresses: [198.51.100.1] }]"],
    ]);
    // The private name of blue's endpoint; to the others it is what the zone says.
    expect((await w.dig("blue", "api.example.com")).split("\n")).toHaveLength(2);
    expect(await w.dig("green", "api.example.com")).toBe("198.51.100.1");
    await w.say("dns-set", { zone: "api.example.com", name: "@", addresses: ["198.51.100.2"] });
    await w.say("accept", { endpoint: GREEN });
    expect(await w.dig("green", "api.example.com")).toBe("10.0.1.50");
    expect(await w.dig("api-1", "api.example.com")).toBe("198.51.100.2");
    const { endpoints } = await w.live.snapshot();
    const [regional = ""] = endpoints[0]?.dnsNames ?? [];
    const [name = ""] = regional.split(".us-east-1.vpce.");
    const zone = "us-east-1.vpce.amazonaws.com";
    await w.say("dns-set", { zone, name, addresses: ["198.51.100.3"] });
    expect(await w.dig("blue", regional)).not.toContain("198.51.100.3");
  });

  test.each([
    [{ zone: "a.com", name: "A", texts: ["x"] }, 'name: "A" is not a name in lower case, * or @'],
    [{ zone: "a.com", name: "a", addresses: ["10.0.0"] }, 'addresses[0]: "10.0.0" is not an IP'],
    [{ zone: "a.com", name: "a", texts: ["é".repeat(128)] }, "is longer than 255 bytes"],
    [{ zone: "a.com", name: "a", adresses: [] }, "arguments: has no key adresses"],
    [{ zone: "a.com", texts: ["x"] }, "name: is missing"],
    [{ zone: "a.com", name: "a", cname: "b.com", texts: ["x"] }, "is an alias and more"],
  ])("that cannot be are refused: %j", async (given, message) => {
    const w = await World.up("nat");
    await expect(w.say("dns-set", given)).rejects.toThrow(message);
    expect((await w.live.snapshot()).lab).toBe(w.name);
  });
});

describe("a lab with a timeline", { timeout: 60_000 }, () => {
  test("tells of what commands have made impossible, and lives on", async () => {
    const w = await World.up("nlb", [
      [
        "\nlab:\n",
        `
timeline:
  - { at_seconds: 3, deregister: { target_group: web, target: 10.0.1.10 } }
  - { at_seconds: 3, register: { target_group: web, target: 10.0.1.99 } }

lab:
`,
      ],
      ["deregistration_delay.timeout_seconds: 10", "deregistration_delay.timeout_seconds: 0"],
    ]);
    await w.say("deregister", { target_group: "web", target: "10.0.1.10" });
    await expect
      .poll(() => w.events.find(({ kind }) => kind === "timeline.refused"), { timeout: 10_000 })
      .toMatchObject({ reason: "timeline[0]: target: web has no 10.0.1.10 port 8080" });
    const { targets } = await w.live.snapshot();
    expect(targets.map(({ address }) => address)).toEqual(["10.0.1.11", "10.0.2.10", "10.0.1.99"]);
  });
});

describe("the clock of the control plane", { timeout: 60_000 }, () => {
  test("goes on when the machine's is set back", async () => {
    const w = await World.up("nlb", [
      ["deregistration_delay.timeout_seconds: 10", "deregistration_delay.timeout_seconds: 2"],
    ]);
    await w.say("deregister", { target_group: "web", target: "10.0.1.10" });
    const realNow = Date.now;
    const back = vi.spyOn(Date, "now").mockImplementation(() => realNow() - 3_600_000);
    closers.push(() => back.mockRestore());
    await expect
      .poll(() => w.events.some(({ kind, to }) => kind === "target.state" && to === "none"), {
        timeout: 10_000,
      })
      .toBe(true);
  });
});
