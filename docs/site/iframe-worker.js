"use strict";

// A browser starts no workers for pages that are read from files, and the search runs in one. There it runs in a hidden frame.
// MkDocs' theme would otherwise fetch a script that does the same from another host.

class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    this.inside = frame.contentWindow;
    this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
    this.inside.importScripts = (...urls) => Promise.all(urls.map((one) => this.load(one)));
    this.ready = this.load(url);
  }

  load(url) {
    return new Promise((loaded, failed) => {
      const script = this.inside.document.createElement("script");
      Object.assign(script, { src: new URL(url, location.href).href, onload: loaded, onerror: failed });
      this.inside.document.body.append(script);
    });
  }

  postMessage(data) {
    this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
  }
}

if (location.protocol === "file:") window.Worker = FrameWorker;
