import { describe, expect, test } from "vitest";
import { htmlReport, pageData } from "../host/report/html.ts";
import { jsonReport } from "../host/report/json.ts";
import { table, wrapped } from "../host/report/table.ts";
import { textReport } from "../host/report/text.ts";
import * as units from "../host/report/units.ts";
import { sampleResult, sampleTimeline } from "./sample.ts";

describe("units", () => {
  test.each([
    [0, "0"],
    [999, "999"],
    [1000, "1,000"],
    [45_123, "45,123"],
    [1_234_567_890, "1,234,567,890"],
  ])("count %s is written %s", (value, text) => expect(units.count(value)).toBe(text));

  test.each([
    [0, "0"],
    [0.0357142, "0.0357"],
    [0.5, "0.500"],
    [7.142, "7.14"],
    [39.54, "39.5"],
    [315.46, "315"],
    [12_345.6, "12,346"],
    [Number.NaN, "n/a"],
    [Number.POSITIVE_INFINITY, "n/a"],
  ])("%s has three significant digits: %s", (value, text) =>
    expect(units.significant(value)).toBe(text),
  );

  test.each([
    [1e-9, "1.00 bit/s"],
    [0.0000202, "20.2 kbit/s"],
    [0.999_6, "1.00 Gbit/s"],
    [140, "140 Gbit/s"],
    [1000, "1.00 Tbit/s"],
  ])("%s Gbit/s are %s", (gbps, text) => expect(units.bitRate(gbps)).toBe(text));

  test("packet rates are counted in millions", () => {
    expect(units.packetRate(25.3)).toBe("25.3 Mpps");
    expect(units.packetRate(0.0123)).toBe("12.3 kpps");
  });

  test("data is decimal and memory is binary", () => {
    expect(units.dataSize(1)).toBe("1 byte");
    expect(units.dataSize(999)).toBe("999 bytes");
    expect(units.dataSize(31_200_000)).toBe("31.2 MB");
    expect(units.memorySize(64 * 1024 * 1024)).toBe("64.0 MiB");
  });

  test.each([
    [0, "0 s"],
    [8.12e-7, "812 ns"],
    [0.000_25, "250 µs"],
    [0.0312, "31.2 ms"],
    [12.3, "12.3 s"],
    [60, "1 min"],
    [250, "4 min 10 s"],
    [3599.7, "60 min"],
    [7500, "2 h 5 min"],
    [273_600, "3 d 4 h"],
  ])("%s seconds are %s", (seconds, text) => expect(units.duration(seconds)).toBe(text));

  test("a share that rounds to nothing or to all still tells what it is", () => {
    expect(units.share(0, 10)).toBe("0 %");
    expect(units.share(1, 100_000)).toBe("<0.1 %");
    expect(units.share(99_999, 100_000)).toBe(">99.9 %");
    expect(units.share(10, 10)).toBe("100.0 %");
    expect(units.share(0, 0)).toBe("0 %");
  });
});

describe("tables", () => {
  test("the first column stands left and numbers stand right", () => {
    const lines = table(
      [
        { title: "verdict", align: "left" },
        { title: "packets", align: "right" },
      ],
      [
        ["forward", "45,000"],
        ["drop.no-flow", "7"],
      ],
    );
    expect(lines).toEqual([
      "verdict       packets",
      "forward        45,000",
      "drop.no-flow        7",
    ]);
  });

  test("text is broken at blanks, a word too long stands alone", () => {
    expect(wrapped("one two three", 7)).toEqual(["one two", "three"]);
    expect(wrapped("a incomprehensibilities b", 5)).toEqual(["a", "incomprehensibilities", "b"]);
    expect(wrapped("", 5)).toEqual([]);
  });
});

describe("the text report", () => {
  test("is this", () => {
    expect(textReport(sampleResult())).toBe(SAMPLE_TEXT);
  });

  test("fits one screen even when every verdict and two resources are in it", () => {
    const result = sampleResult();
    for (const name of Object.keys(result.verdicts) as (keyof typeof result.verdicts)[]) {
      result.verdicts[name] = 1_000_000_000;
    }
    const [resource] = result.resources;
    if (resource) result.resources.push({ ...resource, kind: "network-load-balancer" });
    result.notes = [
      "a sentence that the reader of a report has to know, as long as such are: at most so",
    ];
    result.run.passes = 1_000_000;
    const seconds = { wallSeconds: 35_999, readSeconds: 35_999, writeSeconds: 35_999 };
    Object.assign(result.time, seconds);
    const lines = textReport(result).split("\n");
    expect(lines.length).toBeLessThanOrEqual(40);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
    const others = Object.keys(result.verdicts).length - 9;
    const share = `${others},000,000,000`;
    expect(lines.find((line) => line.includes("others"))).toMatch(
      new RegExp(`^${others} others +${share} `),
    );
  });

  test("of an empty capture has no rates that were not measured", () => {
    const result = sampleResult();
    Object.assign(result.capture, { packets: 0, bytes: 0, durationSeconds: 0, linkTypes: [] });
    result.verdicts = { ...result.verdicts, forward: 0, "pass.non-ip": 0, "drop.truncated": 0 };
    result.engine = { nsPerPacket: 0, coldNsPerPacket: 0, mpps: 0, gbps: 0 };
    result.endToEnd = { mpps: 0, gbps: 0 };
    result.capacity.targets = [{ gbps: 5, cores: 0, met: false }];
    result.capacity.unitsPerCore = 0;
    const text = textReport(result);
    expect(text).not.toMatch(/NaN|Infinity|undefined/);
    expect(text).toContain("nothing was measured");
  });

  test("says how to measure what is too short to be measured", () => {
    const result = sampleResult();
    result.run.passes = 1;
    result.capture.packets = 9;
    expect(textReport(result)).toContain("a guess from 9 packets: --repeat 10000 measures it");
    result.run.passes = 10_000;
    expect(textReport(result)).not.toContain("a guess");
  });
});

test("the JSON report is the result and nothing else", () => {
  expect(JSON.parse(jsonReport(sampleResult()))).toEqual(sampleResult());
});

describe("the page", () => {
  test("cannot be ended early by what the capture is called", () => {
    const result = sampleResult();
    result.capture.file = "</script><script>alert(1)</script>&\"'.pcap";
    const page = htmlReport(result, sampleTimeline(), { js: "'</script>'", css: "" });
    expect(page).not.toContain("alert(1)</script>");
    expect(page).toContain("&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;");
    expect(page.match(/<\/script>/g)).toHaveLength(3);
  });

  test("draws rates per second and only verdicts that were given", () => {
    const timeline = { ...sampleTimeline(), bytes: [125_000_000], packets: [7], flowsCreated: [2] };
    const data = pageData(sampleResult(), timeline);
    expect(data.bitsPerSecond).toEqual([1e10]);
    expect(data.packetsPerSecond).toEqual([70]);
    expect(data.flowsPerSecond).toEqual([20]);
    expect(data.verdictNames).toEqual(["forward", "pass.non-ip", "drop.truncated"]);
    expect(data.verdicts).toEqual([45_000, 100, 23]);
  });
});

const SAMPLE_TEXT = `\
capture     web.pcap (pcap, Ethernet)
            45,123 packets, 31.2 MB in 12.3 s, 20.3 Mbit/s on average
scenario    NAT gateway: whoever sends a flow's first packet is inside; 5 passes, 1 worker
flows       1,234 created (1,100 TCP, 130 UDP, 4 ICMP, 0 other), at most 980 at once, 3 expired
output      45,100 packets, 31.2 MB; digest 0123456789abcdef
machine     Example CPU (2 cores), Node 26.10.0, Flowplane 0.1.0

verdict         packets   share
forward          45,000  99.7 %
pass.non-ip         100   0.2 %
drop.truncated       23   0.1 %

speed       ns/packet    packets       frames
engine           39.5  25.3 Mpps   140 Gbit/s  median of 4 warm passes; first pass 120 ns
end to end        315  3.17 Mpps  17.5 Gbit/s  71.2 ms: read 31.2 ms

resource               packets     data  new flows  active         peak  units
nat-1     NAT gateway   45,000  31.1 MB      1,234     120  41.2 Mbit/s      1

capacity: with this capture's 691 bytes a frame, one core carries 28.0 units of 5 Gbit/s
      target   cores  reached by 1 worker
    5 Gbit/s  0.0357                  yes
   10 Gbit/s  0.0714                  yes
   25 Gbit/s   0.179                  yes
   50 Gbit/s   0.357                  yes
  100 Gbit/s   0.714                  yes
    1 Tbit/s    7.14                   no`;
