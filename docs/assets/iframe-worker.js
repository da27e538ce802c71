// The search of these pages runs in a worker. Browsers refuse workers to a page that was opened from a folder; there a
// hidden frame takes its place. (MkDocs Material would fetch such a file from a server.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inner = this.frame.contentWindow;
      const script = document.createElement("script");
      inner.document.open();
      inner.document.write("<!doctype html><html><head></head><body></body></html>");
      inner.document.close();
      inner.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      script.src = new URL(url, location.href).href;
      script.onload = () => {
        this.frame.loaded = true;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      };
      inner.document.body.appendChild(script);
    }

    postMessage(data) {
      const inner = this.frame.contentWindow;
      if (!this.frame.loaded) this.waiting.push(data);
      else inner.dispatchEvent(new inner.MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
