/* docs.c: see docs.h. In the form of the docstrings of python/tailrace, in the order of the functions;
 * tests/unit/test_docstrings.py runs the examples. */
#include "docs.h"

/* ---- Messages and requests: call.c --------------------------------------------------------------*/

const char tr_doc_send[] =
    "send($module, dest, message, /)\n--\n\n"
    "Put a message at the end of a process's mailbox, and return at once.\n\n"
    "Messages of one sender arrive in order. They are handed over by reference: what was sent,\n"
    "leave alone.\n\n"
    "Args:\n"
    "    dest: a Pid, a registered name or a handle. To a process that ended the message is dropped.\n"
    "    message: any object.\n\n"
    "Raises:\n"
    "    NoProcess: nobody holds the name.\n"
    "    TypeError: `dest` is none of these.\n"
    "    EngineError: the Pid belongs to another program, such as the parent of a fork.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.send(tr.self(), \"hello\")\n"
    ">>> tr.receive()\n"
    "'hello'\n";

const char tr_doc_send_many[] =
    "send_many($module, dests, message, /)\n--\n\n"
    "Send one message to many: to all of them, or, when one is bad, to none.\n\n"
    "Args:\n"
    "    dests: an iterable of destinations, as of `send`; None among them is skipped.\n"
    "    message: any object; all get the same one.\n\n"
    "Raises:\n"
    "    NoProcess: nobody holds one of the names.\n"
    "    TypeError: one of them is no destination.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.send_many([tr.self(), None, tr.self()], \"hello\")\n"
    ">>> tr.receive(), tr.receive()\n"
    "('hello', 'hello')\n";

const char tr_doc_cast[] =
    "cast($module, dest, request, /)\n--\n\n"
    "Hand a request to a server's `handle_cast`, and return at once.\n\n"
    "Args:\n"
    "    dest: a Pid, a registered name or a handle. If it is missing nothing happens.\n"
    "    request: any object. A process that is no server receives `(\"$cast\", request)`.\n\n"
    "Raises:\n"
    "    TypeError: `dest` is none of these.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> class Adder(tr.GenServer):\n"
    "...     def init(self):\n"
    "...         self.total = 0\n"
    "...     def handle_cast(self, number):\n"
    "...         self.total += number\n"
    "...     def handle_call(self, request, caller):\n"
    "...         return self.total\n"
    ">>> adder = Adder.start_link()\n"
    ">>> tr.cast(adder, 2)\n"
    ">>> tr.cast(adder, 3)\n"
    ">>> tr.call(adder, \"total\")\n"
    "5\n";

const char tr_doc_call[] =
    "call($module, dest, request, timeout=5.0)\n--\n\n"
    "Ask a server and wait for the answer of its `handle_call`.\n\n"
    "The messages of the caller's mailbox are left alone. A callback that waits here does not hold\n"
    "others up.\n\n"
    "Args:\n"
    "    dest: a Pid, a registered name or a handle.\n"
    "    request: any object.\n"
    "    timeout: seconds to wait; None waits for ever.\n\n"
    "Returns:\n"
    "    The answer.\n\n"
    "Raises:\n"
    "    CallTimeout: no answer in time. The server goes on; its late answer is dropped.\n"
    "    NoProcess: there is no such process.\n"
    "    CallExit: the server ended before it answered, with `reason`; or a process called itself.\n"
    "    DeadlockError: the server waits, by way of others perhaps, for the caller.\n"
    "    TypeError, ValueError: a bad argument; nothing was sent.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> class Echo(tr.GenServer):\n"
    "...     def handle_call(self, request, caller):\n"
    "...         return request\n"
    ">>> echo = Echo.start_link(name=\"echo\")\n"
    ">>> tr.call(\"echo\", \"hello\", timeout=1.0)\n"
    "'hello'\n"
    ">>> echo.stop()\n";

const char tr_doc_stop[] =
    "stop($module, dest, reason='normal', timeout=None)\n--\n\n"
    "Ask a server to end, and wait until it has.\n\n"
    "The request queues behind earlier messages; then the server's `terminate` runs.\n\n"
    "Args:\n"
    "    dest: a Pid, a registered name or a handle.\n"
    "    reason: what the server is to end with.\n"
    "    timeout: seconds to wait; None waits for ever.\n\n"
    "Raises:\n"
    "    CallTimeout: it has not ended in time. It still will when it gets there.\n"
    "    NoProcess: there is no such process.\n"
    "    CallExit: it ended with another `reason`; or a process stopped itself.\n"
    "    TypeError, ValueError: a bad argument.\n\n"
    "Any thread or process may call it, but not the server itself.\n\n"
    ">>> import tailrace as tr\n"
    ">>> server = tr.GenServer.start_link()\n"
    ">>> tr.stop(server)\n"
    ">>> server.alive\n"
    "False\n";

const char tr_doc_reply[] =
    "reply($module, caller, value, /)\n--\n\n"
    "Answer a call whose `handle_call` returned `NOREPLY`.\n\n"
    "Works once; later answers, and those to a caller that has given up, are dropped.\n\n"
    "Args:\n"
    "    caller: the From that `handle_call` was given.\n"
    "    value: the answer.\n\n"
    "Raises:\n"
    "    TypeError: `caller` is no From.\n\n"
    "Any thread or process may call it, also while `handle_call` still runs.\n\n"
    ">>> import tailrace as tr\n"
    ">>> class Later(tr.GenServer):\n"
    "...     def handle_call(self, request, caller):\n"
    "...         tr.spawn(tr.reply, caller, request.upper())\n"
    "...         return tr.NOREPLY\n"
    ">>> later = Later.start_link()\n"
    ">>> later.call(\"hello\")\n"
    "'HELLO'\n"
    ">>> later.stop()\n";

/* ---- Processes: process.c -----------------------------------------------------------------------*/

const char tr_doc_spawn[] =
    "spawn($module, fn, /, *args, name=None, scheduler=None, priority='normal', **kwargs)\n"
    "--\n\n"
    "Run fn(*args, **kwargs) as a process and return its Pid at once.\n"
    "\n"
    "What fn returns is dropped; an exception is the process's exit reason.\n"
    "\n"
    "Args:\n"
    "    fn: the function; with scheduler='core' also one made by async def that awaits only\n"
    "        acall, astop, areceive and asleep.\n"
    "    name: a name to register the process by.\n"
    "    scheduler: 'thread' (the default; it may block), 'core', 'asyncio' (the default of an async\n"
    "        def function): a task of the engine's own event loop, where nothing may block; or\n"
    "        'process' (it computes: it runs in a process of the operating system, where the\n"
    "        engine cannot be used).\n"
    "    priority: 'low', 'normal' or 'high'.\n"
    "\n"
    "Raises:\n"
    "    AlreadyRegistered: the name is taken.\n"
    "    SystemLimit: too many processes.\n"
    "    TypeError, ValueError: a bad argument.\n"
    "\n"
    "Any thread or process may call it.\n"
    "\n"
    ">>> import tailrace as tr\n"
    ">>> me = tr.self()\n"
    ">>> pid = tr.spawn(me.send, 'done')\n"
    ">>> tr.receive(timeout=5)\n"
    "'done'\n";

const char tr_doc_spawn_link[] =
    "spawn_link($module, fn, /, *args, name=None, scheduler=None, priority='normal', "
    "**kwargs)\n"
    "--\n\n"
    "As spawn, linked to the caller from the first instruction on (O6).\n"
    "\n"
    "Any thread or process may call it.\n"
    "\n"
    ">>> import tailrace as tr\n"
    ">>> before = tr.trap_exit()\n"
    ">>> pid = tr.spawn_link(lambda: None)\n"
    ">>> tr.receive(timeout=5).reason\n"
    "'normal'\n"
    ">>> now = tr.trap_exit(before)\n";

const char tr_doc_spawn_monitor[] =
    "spawn_monitor($module, fn, /, *args, name=None, scheduler=None, priority='normal', "
    "**kwargs)\n"
    "--\n\n"
    "As spawn, watched by the caller from the first instruction on (O7).\n"
    "\n"
    "Returns:\n"
    "    The Pid, and the Ref of the monitor.\n"
    "\n"
    "Any thread or process may call it.\n"
    "\n"
    ">>> import tailrace as tr\n"
    ">>> pid, ref = tr.spawn_monitor(lambda: None)\n"
    ">>> tr.receive(ref, timeout=5).reason\n"
    "'normal'\n";

const char tr_doc_self[] =
    "self($module, /)\n--\n\n"
    "The Pid of the running process.\n\n"
    "A thread that is no process of the engine gets one of its own on first use, which ends with\n"
    "the thread.\n\n"
    "Raises:\n"
    "    ProcessExit: an exit signal ended the thread's process; told once, then it has a fresh one.\n"
    "    EngineStopped: the engine was stopped.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.self() == tr.self()\n"
    "True\n";

const char tr_doc_sleep[] =
    "sleep($module, seconds, /)\n--\n\n"
    "Wait in the engine, on its clock, whatever messages come.\n\n"
    "Args:\n"
    "    seconds: a number >= 0.\n\n"
    "Raises:\n"
    "    TypeError, ValueError: a bad number of seconds.\n"
    "    ProcessExit: in a thread whose process an exit signal ended.\n\n"
    "Any thread or process may call it; a callback that sleeps here does not hold others up.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.sleep(0.01)\n";

const char tr_doc_link[] =
    "link($module, pid, /)\n--\n\n"
    "Tie the caller and a process together: when one ends, the other gets an exit signal.\n\n"
    "A link is single and has no direction. A signal with a reason other than \"normal\" ends who\n"
    "does not trap exits; who does receives `Exit(pid, reason)`.\n\n"
    "Args:\n"
    "    pid: a Pid or a handle.\n\n"
    "Returns:\n"
    "    True.\n\n"
    "Raises:\n"
    "    NoProcess: it has ended (who traps exits receives `Exit(pid, \"noproc\")` instead).\n"
    "    TypeError: `pid` is neither.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> server = tr.GenServer.start()\n"
    ">>> tr.link(server)\n"
    "True\n"
    ">>> server in tr.self().info().links\n"
    "True\n"
    ">>> server.stop()\n";

const char tr_doc_unlink[] =
    "unlink($module, pid, /)\n--\n\n"
    "Undo `link`: no signal of that link arrives any more.\n\n"
    "An `Exit` that came before stays in the mailbox.\n\n"
    "Args:\n"
    "    pid: a Pid or a handle; one that has ended or is not linked is no error.\n\n"
    "Returns:\n"
    "    True.\n\n"
    "Raises:\n"
    "    TypeError: `pid` is neither.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> server = tr.GenServer.start_link()\n"
    ">>> tr.unlink(server)\n"
    "True\n"
    ">>> tr.exit(server, \"kill\")\n"
    "True\n";

const char tr_doc_alias[] =
    "alias($module, mode=\"explicit\")\n--\n\n"
    "Make a Ref that others can send to, and that the caller can switch off (O57 to O59).\n\n"
    "Args:\n"
    "    mode: \"explicit\": on until `unalias`; \"reply\": off after the first message.\n\n"
    "Returns:\n"
    "    The Ref; `send` takes it for a destination. It ends with the caller.\n\n"
    "Raises:\n"
    "    TypeError, ValueError: a bad mode.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> once = tr.alias(\"reply\")\n"
    ">>> tr.send(once, 1)\n"
    ">>> tr.send(once, 2)  # dropped\n"
    ">>> tr.receive(), tr.receive(timeout=0, default=None)\n"
    "(1, None)\n";

const char tr_doc_unalias[] =
    "unalias($module, ref, /)\n--\n\n"
    "Switch an alias of the caller's off; what was sent to it before stays in the mailbox (O58).\n\n"
    "Args:\n"
    "    ref: what `alias`, or `monitor` with `alias=`, returned to this process.\n\n"
    "Returns:\n"
    "    True if it was on and the caller's.\n\n"
    "Raises:\n"
    "    TypeError: `ref` is no Ref.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> ref = tr.alias()\n"
    ">>> tr.unalias(ref), tr.unalias(ref)\n"
    "(True, False)\n";

const char tr_doc_monitor[] =
    "monitor($module, dest, /, *, alias=None, tag=None)\n--\n\n"
    "Watch a process: when it ends, the caller receives `Down(ref, pid, reason)`.\n\n"
    "For a process that has ended, and a name that nobody holds, it comes at once, with the reason\n"
    "\"noproc\". Each monitor gives a message of its own.\n\n"
    "Args:\n"
    "    dest: a Pid, a name (then `Down.pid` is the name as given) or a handle.\n"
    "    alias: if not None, the Ref can be sent to as well (O60): \"explicit\" until `unalias`;\n"
    "        \"demonitor\" as long as the monitor; \"reply_demonitor\" until the first message,\n"
    "        which removes the monitor, or as long as the monitor.\n"
    "    tag: if not None, `(tag, ref, pid, reason)` comes in place of `Down`.\n\n"
    "Returns:\n"
    "    The Ref of the monitor; `receive(ref)` waits for its message.\n\n"
    "Raises:\n"
    "    TypeError: `dest` is none of these.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> server = tr.GenServer.start()\n"
    ">>> ref = tr.monitor(server)\n"
    ">>> server.stop()\n"
    ">>> tr.receive(ref).reason\n"
    "'normal'\n";

const char tr_doc_demonitor[] =
    "demonitor($module, ref, flush=False, info=False)\n--\n\n"
    "Undo `monitor`: no `Down` of it comes any more.\n\n"
    "Args:\n"
    "    ref: what `monitor` returned to this process; others are left alone.\n"
    "    flush: whether to take a `Down` that came before out of the mailbox, too.\n"
    "    info: whether to tell if the monitor was there.\n\n"
    "Returns:\n"
    "    True; with `info` only if an active monitor was removed before it fired.\n\n"
    "Raises:\n"
    "    TypeError: a bad argument.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> ref = tr.monitor(tr.GenServer.start_link())\n"
    ">>> tr.demonitor(ref, info=True)\n"
    "True\n"
    ">>> tr.demonitor(ref, info=True)\n"
    "False\n";

const char tr_doc_exit[] =
    "exit($module, pid, reason, /)\n--\n\n"
    "Send an exit signal.\n\n"
    "Who traps exits receives `Exit(caller, reason)`. Who does not ends with the reason, unless it\n"
    "is \"normal\". \"kill\" ends both, with the reason \"killed\": at once for everybody else, and\n"
    "without a chance to clean up. A signal to oneself takes effect before this returns. To end\n"
    "oneself in an orderly way, raise `ProcessExit(reason)`.\n\n"
    "Args:\n"
    "    pid: a Pid or a handle; one that has ended is no error.\n"
    "    reason: any object.\n\n"
    "Returns:\n"
    "    True.\n\n"
    "Raises:\n"
    "    TypeError: `pid` is neither (a name is not taken).\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> pid, ref = tr.spawn_monitor(tr.sleep, 100)\n"
    ">>> tr.exit(pid, \"enough\")\n"
    "True\n"
    ">>> tr.receive(ref).reason\n"
    "'enough'\n";

const char tr_doc_register[] =
    "register($module, name, pid=None)\n--\n\n"
    "Give a process a name, which then stands for it wherever a destination is taken.\n\n"
    "A process has at most one name, and loses it before its end is announced.\n\n"
    "Args:\n"
    "    name: a non-empty str, at most 255 bytes as UTF-8.\n"
    "    pid: a Pid or a handle; None names the caller.\n\n"
    "Returns:\n"
    "    True.\n\n"
    "Raises:\n"
    "    AlreadyRegistered: somebody holds the name; `pid` of the error is who.\n"
    "    ValueError: the process has a name already, or has ended; or it is no name.\n"
    "    TypeError: a bad argument.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.register(\"me\")\n"
    "True\n"
    ">>> tr.whereis(\"me\") == tr.self()\n"
    "True\n"
    ">>> tr.unregister(\"me\")\n"
    "True\n";

const char tr_doc_unregister[] =
    "unregister($module, name, /)\n--\n\n"
    "Take a name back.\n\n"
    "Args:\n"
    "    name: a name that somebody holds.\n\n"
    "Returns:\n"
    "    True.\n\n"
    "Raises:\n"
    "    ValueError: nobody holds it; or it is no name.\n"
    "    TypeError: `name` is no str.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.register(\"me\")\n"
    "True\n"
    ">>> tr.unregister(\"me\")\n"
    "True\n";

const char tr_doc_whereis[] =
    "whereis($module, name, /)\n--\n\n"
    "Who holds a name.\n\n"
    "Args:\n"
    "    name: a non-empty str.\n\n"
    "Returns:\n"
    "    The Pid, which may end at any moment; or None.\n\n"
    "Raises:\n"
    "    TypeError, ValueError: it is no name.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.whereis(\"nobody\") is None\n"
    "True\n";

const char tr_doc_registered[] =
    "registered($module, /)\n--\n\n"
    "All names that are held now, in no order.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> server = tr.GenServer.start_link(name=\"server\")\n"
    ">>> \"server\" in tr.registered()\n"
    "True\n"
    ">>> server.stop()\n";

const char tr_doc_send_after[] =
    "send_after($module, dest, message, delay)\n--\n\n"
    "Send a message later. Never early; late by about a millisecond at most on an idle machine.\n\n"
    "A timer to a Pid ends with the process. A name is looked up when the time comes.\n\n"
    "Args:\n"
    "    dest: a Pid, a name (held by anybody or not) or a handle.\n"
    "    message: any object.\n"
    "    delay: seconds from now, >= 0.\n\n"
    "Returns:\n"
    "    A Timer, which may be dropped: the message is sent all the same.\n\n"
    "Raises:\n"
    "    TypeError, ValueError: a bad argument.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> timer = tr.send_after(tr.self(), \"tea is ready\", 0.01)\n"
    ">>> tr.receive(timeout=10)\n"
    "'tea is ready'\n"
    ">>> timer.cancel() is None\n"
    "True\n";

/* ---- Types: pid.c -------------------------------------------------------------------------------*/

const char tr_doc_pid[] =
    "The address of a process.\n\n"
    "A value: it can be compared, sorted, hashed and pickled, and never names another process. It\n"
    "does not keep the process alive. In another program, such as the child of a fork, its methods\n"
    "raise EngineError. Only the engine makes it. Any thread or process may use it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> pid = tr.spawn(tr.sleep, 100, name=\"sleeper\")\n"
    ">>> pid\n"
    "<pid ... \"sleeper\">\n"
    ">>> pid.exit(\"kill\"), pid.alive\n"
    "(True, False)\n";

const char tr_doc_pid_send[] =
    "send($self, message, /)\n--\n\n"
    "As `tailrace.send`: put a message into the mailbox, and return at once.\n\n"
    "Args:\n"
    "    message: any object. To a process that ended it is dropped.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.self().send(\"hello\")\n"
    ">>> tr.receive()\n"
    "'hello'\n";

const char tr_doc_pid_cast[] =
    "cast($self, request, /)\n--\n\n"
    "As `tailrace.cast`: hand a request to the server's `handle_cast`, and return at once.\n\n"
    "Args:\n"
    "    request: any object. If the server has ended nothing happens.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.self().cast(\"hello\")\n"
    ">>> tr.receive()\n"
    "('$cast', 'hello')\n";

const char tr_doc_pid_call[] =
    "call($self, request, timeout=5.0)\n--\n\n"
    "As `tailrace.call`: ask the server and wait for the answer of its `handle_call`.\n\n"
    "Args:\n"
    "    request: any object.\n"
    "    timeout: seconds to wait; None waits for ever.\n\n"
    "Returns:\n"
    "    The answer.\n\n"
    "Raises:\n"
    "    CallTimeout, NoProcess, CallExit, DeadlockError, TypeError, ValueError: see there.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> class Echo(tr.GenServer):\n"
    "...     def handle_call(self, request, caller):\n"
    "...         return request\n"
    ">>> echo = Echo.start_link()\n"
    ">>> echo.call(\"hello\")\n"
    "'hello'\n"
    ">>> echo.stop()\n";

const char tr_doc_pid_stop[] =
    "stop($self, reason='normal', timeout=None)\n--\n\n"
    "As `tailrace.stop`: ask the server to end, and wait until it has.\n\n"
    "Args:\n"
    "    reason: what it is to end with.\n"
    "    timeout: seconds to wait; None waits for ever.\n\n"
    "Raises:\n"
    "    CallTimeout, NoProcess, CallExit, TypeError, ValueError: see there.\n\n"
    "Any thread or process may call it, but not the server itself.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.GenServer.start_link().stop()\n";

const char tr_doc_pid_acall[] =
    "acall($self, request, timeout=5.0)\n--\n\n"
    "As `tailrace.acall`: ask the server and await the answer of its `handle_call`.\n\n"
    "Args:\n"
    "    request: any object.\n"
    "    timeout: seconds to wait; None waits for ever.\n\n"
    "Returns:\n"
    "    A coroutine that returns the answer.\n\n"
    "Raises:\n"
    "    CallTimeout, NoProcess, CallExit, DeadlockError, TypeError, ValueError: see there.\n\n"
    "Tasks of any event loop, in any thread, may await it.\n\n"
    ">>> import asyncio\n"
    ">>> import tailrace as tr\n"
    ">>> class Echo(tr.GenServer):\n"
    "...     def handle_call(self, request, caller):\n"
    "...         return request\n"
    ">>> async def main():\n"
    "...     echo = Echo.start_link()\n"
    "...     print(await echo.acall(\"hello\"))\n"
    "...     await echo.astop()\n"
    ">>> asyncio.run(main())\n"
    "hello\n";

const char tr_doc_pid_astop[] =
    "astop($self, reason='normal', timeout=None)\n--\n\n"
    "As `tailrace.astop`: ask the server to end, and await that it has.\n\n"
    "Args:\n"
    "    reason: what it is to end with.\n"
    "    timeout: seconds to wait; None waits for ever.\n\n"
    "Returns:\n"
    "    A coroutine.\n\n"
    "Raises:\n"
    "    CallTimeout, NoProcess, CallExit, TypeError, ValueError: see there.\n\n"
    "Tasks of any event loop, in any thread, may await it.\n\n"
    ">>> import asyncio\n"
    ">>> import tailrace as tr\n"
    ">>> server = tr.GenServer.start()\n"
    ">>> asyncio.run(server.astop())\n"
    ">>> server.alive\n"
    "False\n";

const char tr_doc_pid_exit[] =
    "exit($self, reason, /)\n--\n\n"
    "As `tailrace.exit`: send an exit signal.\n\n"
    "Args:\n"
    "    reason: any object; \"kill\" cannot be trapped.\n\n"
    "Returns:\n"
    "    True.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.spawn(tr.sleep, 100).exit(\"kill\")\n"
    "True\n";

const char tr_doc_pid_info[] =
    "info($self, /)\n--\n\n"
    "As `tailrace.process_info`: what is known of the process now.\n\n"
    "Returns:\n"
    "    A ProcessInfo; None if it has ended.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.self().info().message_queue_len\n"
    "0\n";

const char tr_doc_pid_alive[] = "Whether the process runs; False as soon as it is ending.";
const char tr_doc_pid_name[] = "Its registered name, or None.";

const char tr_doc_ref[] =
    "A unique reference: of a monitor, a request, a subscription.\n\n"
    "Hashable, and equal to itself only. Only the engine makes it. Any thread or process may use it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> one, other = tr.monitor(tr.self()), tr.monitor(tr.self())\n"
    ">>> one == other\n"
    "False\n";

const char tr_doc_from[] =
    "Who waits for the answer of a call: `handle_call` gets it, `tailrace.reply` takes it.\n\n"
    "Only the engine makes it. Any thread or process may use it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> class Who(tr.GenServer):\n"
    "...     def handle_call(self, request, caller):\n"
    "...         return caller.pid\n"
    ">>> who = Who.start_link()\n"
    ">>> who.call(\"who am I?\") == tr.self()\n"
    "True\n"
    ">>> who.stop()\n";

const char tr_doc_from_pid[] = "The Pid of the process that waits for the answer.";

const char tr_doc_timer[] =
    "A message on its way; what `tailrace.send_after` returns.\n\n"
    "Dropping it does not cancel it. Any thread or process may use it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> timer = tr.send_after(tr.self(), \"never\", 60)\n"
    ">>> 59 < timer.remaining() <= 60\n"
    "True\n"
    ">>> timer.cancel() is None, timer.cancel() is None\n"
    "(False, True)\n";

const char tr_doc_timer_cancel[] =
    "cancel($self, /)\n--\n\n"
    "Stop the timer: its message never comes.\n\n"
    "Returns:\n"
    "    The seconds that were left; None if it had fired, was cancelled, or its process has ended.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> tr.send_after(tr.self(), \"never\", 60).cancel() > 59\n"
    "True\n";

const char tr_doc_timer_remaining[] =
    "remaining($self, /)\n--\n\n"
    "How long it will take.\n\n"
    "Returns:\n"
    "    Seconds; None if it has fired, was cancelled, or its process has ended.\n\n"
    "Any thread or process may call it.\n\n"
    ">>> import tailrace as tr\n"
    ">>> timer = tr.send_after(tr.self(), \"never\", 60)\n"
    ">>> timer.remaining() <= 60\n"
    "True\n"
    ">>> timer.cancel() <= 60\n"
    "True\n";
