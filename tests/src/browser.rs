//! A real browser without a window, for the tests of pages: Chromium, driven by its DevTools
//! protocol over a pipe (`--remote-debugging-pipe`), so that no port is opened. What it does while
//! a page is open is recorded: what it loads, and what it complains of.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use wait_timeout::ChildExt;

/// How long the browser may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// How long it may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Names under which Chromium is installed.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A page on disk, in a temporary directory that is deleted with it.
#[derive(Debug)]
pub struct Written {
    directory: TempDir,
}

impl Written {
    /// A directory for a page that is yet to be written.
    ///
    /// # Panics
    /// If there is none.
    pub fn nowhere() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self { directory }
    }

    /// A page of these bytes.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn of(bytes: &[u8]) -> Self {
        let written = Self::nowhere();
        fs::write(written.path(), bytes).expect("room for a page");
        written
    }

    /// Where the page is, or is to be.
    pub fn path(&self) -> PathBuf {
        self.beside("page.html")
    }

    /// The path of another file in the same directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A page in a browser of its own.
#[derive(Debug)]
pub struct Page {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    events: Vec<Value>,
    home: TempDir,
}

/// The browser, from `CHROMIUM` or where programs are.
fn program() -> PathBuf {
    if let Some(named) = env::var_os("CHROMIUM") {
        return named.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name)));
    let found = places.into_iter().find(|place| place.is_file());
    found.expect("there is no Chromium: run `make test-browser`, which installs it or says how")
}

impl Page {
    /// Opens `file` in a window that is `width` pixels wide and `height` high, and waits until it
    /// is loaded.
    ///
    /// # Panics
    /// If there is no browser, or it does not do as it is told.
    pub fn open(file: &Path, width: u32, height: u32) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let log = fs::File::create(home.path().join("log")).expect("room for a log");
        // The protocol wants file descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#])
            .arg(program())
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", home.path().display()))
            .arg("--remote-debugging-pipe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let commands = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("the protocol is JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut page = Self {
            child,
            commands,
            messages,
            session: None,
            last: 0,
            events: Vec::new(),
            home,
        };
        page.load(file, width, height);
        page
    }

    fn load(&mut self, file: &Path, width: u32, height: u32) {
        let target = self.tell("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.tell("Target.attachToTarget", &attach);
        self.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.tell(&format!("{domain}.enable"), &json!({}));
        }
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tell("Emulation.setDeviceMetricsOverride", &size);
        let file = file.canonicalize().expect("a page");
        self.tell(
            "Page.navigate",
            &json!({ "url": format!("file://{}", file.display()) }),
        );
        let deadline = Instant::now() + ANSWER_LIMIT;
        while !self
            .events
            .iter()
            .any(|it| it["method"] == "Page.loadEventFired")
        {
            let event = self.receive(deadline);
            self.events.push(event);
        }
        self.settle();
    }

    /// Waits until all changes so far have been drawn.
    pub fn settle(&mut self) {
        let frames = "new Promise(done => \
                      requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";
        self.evaluate(frames);
    }

    /// The value of a JavaScript expression in the page. A promise is waited for.
    ///
    /// # Panics
    /// If it throws.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let wanted =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.tell("Runtime.evaluate", &wanted);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown:#}");
        answer["result"]["value"].take()
    }

    /// The same, as text.
    #[track_caller]
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.evaluate(expression);
        value
            .as_str()
            .unwrap_or_else(|| panic!("{expression} is no text: {value}"))
            .to_owned()
    }

    /// The same, as a number.
    #[track_caller]
    pub fn number(&mut self, expression: &str) -> f64 {
        let value = self.evaluate(expression);
        value
            .as_f64()
            .unwrap_or_else(|| panic!("{expression} is no number: {value}"))
    }

    /// Sends a pointer event, such as `mouseMoved`, and waits until its effect is drawn.
    pub fn pointer(&mut self, what: &str, (x, y): (f64, f64), more: Value) {
        let mut event = json!({ "type": what, "x": x, "y": y });
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        self.tell("Input.dispatchMouseEvent", &event);
        self.settle();
    }

    /// Presses and releases a key, and waits until its effect is drawn.
    pub fn key(&mut self, key: &str) {
        for what in ["keyDown", "keyUp"] {
            self.tell(
                "Input.dispatchKeyEvent",
                &json!({ "type": what, "key": key }),
            );
        }
        self.settle();
    }

    /// Sets the colour scheme that the user prefers: `dark` or `light`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tell(
            "Emulation.setEmulatedMedia",
            &json!({ "features": features }),
        );
        self.settle();
    }

    /// The addresses that were asked for so far.
    pub fn requests(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter(|it| it["method"] == "Network.requestWillBeSent")
            .filter_map(|it| it["params"]["request"]["url"].as_str())
            .collect()
    }

    /// What the page, or the browser about the page, has written to the console so far.
    pub fn complaints(&self) -> Vec<String> {
        let complaints = [
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ];
        self.events
            .iter()
            .filter(|it| complaints.iter().any(|method| it["method"] == *method))
            .map(|it| it["params"].to_string())
            .collect()
    }

    /// Checks that the page has loaded nothing but itself, and that there are no complaints.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn is_quiet(&self) {
        assert_eq!(self.complaints(), [] as [&str; 0]);
        let requests = self.requests();
        assert!(
            matches!(requests[..], [own] if own.starts_with("file://")),
            "{requests:?}"
        );
    }

    fn tell(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let sent = write!(self.commands, "{command}\0").and_then(|()| self.commands.flush());
        if let Err(error) = sent {
            panic!("the browser does not listen: {error}; {}", self.log());
        }
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let mut message = self.receive(deadline);
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    fn receive(&self, deadline: Instant) -> Value {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = self.messages.recv_timeout(left);
        message.unwrap_or_else(|error| panic!("no word from the browser: {error}; {}", self.log()))
    }

    /// What the browser itself has logged.
    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It has child processes, which end with it if it is asked to close.
        let _ = write!(
            self.commands,
            "{}\0",
            json!({ "id": 0, "method": "Browser.close" })
        );
        let _ = self.commands.flush();
        if !matches!(self.child.wait_timeout(END_LIMIT), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
