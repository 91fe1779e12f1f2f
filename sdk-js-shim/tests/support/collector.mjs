// A collector that answers what the test says, over a real socket, and remembers what it was told.

import { createServer } from "node:http";

/** Say what a collector says that took *count* events. */
export const accepted = (count, rejected = []) => ({
  status: 202,
  body: { status: "accepted", eventCount: count, duplicates: 0, rejected },
});

/** Start one; `collector.next(...)` lines up answers, and without any it takes everything. */
export async function startCollector() {
  const answers = [];
  const requests = [];
  const gone = new Set();

  const server = createServer((request, response) => {
    const chunks = [];
    const page = request.url.split("/")[1];
    response.on("error", () => {});
    request.on("error", () => {});
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      // A page that ended says nothing more.
      if (gone.has(page)) return request.socket.destroy();
      const text = Buffer.concat(chunks).toString();
      const said = {
        method: request.method,
        url: request.url,
        headers: request.headers,
        text,
        page,
      };
      said.body = parsed(text);
      said.batch = said.body?.batch ?? [];
      let answer = answers.shift() ?? (said.body ? collector.otherwise : { status: 400 });
      if (typeof answer == "function") answer = answer(said);
      said.answer = answer;
      requests.push(said);
      if (answer == "hang")
        said.release = (late) => reply(response, late ?? accepted(said.batch.length));
      else if (answer == "reset") request.socket.destroy();
      else if (answer == "half") half(response, true);
      else if (answer == "endless") half(response);
      else reply(response, answer);
    });
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

  const collector = {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    /** The answer to what no answer is lined up for. */
    otherwise: ({ batch }) => accepted(batch.length),
    /** Answer so to the next requests, one each. */
    next: (...more) => answers.push(...more),
    forget: () => answers.splice(0),
    /** Act as if the page under this path had died. */
    bury: (page) => gone.add(page),
    /** Return the events that were taken, in order. */
    taken: () =>
      requests.flatMap(({ batch, answer }) =>
        answer.status == 202 && answer.body?.eventCount >= 0
          ? batch.filter(
              (_, index) => !answer.body.rejected?.some((refusal) => refusal.index == index),
            )
          : [],
      ),
    close: () =>
      new Promise((closed) => {
        server.close(closed);
        server.closeAllConnections();
      }),
  };
  return collector;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    // As a collector would, it leaves a broken body alone.
  }
}

function reply(response, { status, body = "", headers = {} }) {
  response.writeHead(status, headers);
  response.end(typeof body == "string" ? body : JSON.stringify(body));
}

function half(response, ends) {
  const body = JSON.stringify(accepted(1).body);
  response.writeHead(202, { "content-length": body.length });
  response.write(body.slice(0, 12), () => ends && response.socket.destroy());
}
