"""Compiles and drives lookup_load.c."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import process_tree
from machine import read_cores
from servers import DOMAIN, Server, ServerError

SOURCE = Path(__file__).with_name("lookup_load.c")
GCC = shutil.which("gcc")


def compile_client(directory: Path) -> Path:
    program = directory / "lookup_load"
    command = [GCC, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", "-o", str(program), str(SOURCE)]
    subprocess.run(command, check=True)
    return program


def measure(program: Path, server: Server, endpoint: str, arguments: list[str]) -> dict:
    """One run; the server's CPU time is read while its connections stand open and idle."""
    command = [str(program), "--address", server.addresses[endpoint], "--domain", DOMAIN, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        if client.stdout.readline() != "ready\n":
            return failed_run(client)
        cores, before = read_cores(), process_tree.settled_cpu_seconds(server.pid)
        client.stdin.write("\n")
        client.stdin.flush()
        line = client.stdout.readline()
        if not line:
            return failed_run(client)
        cpu = process_tree.settled_cpu_seconds(server.pid) - before
        cores = read_cores().since(cores)
        resident = process_tree.memory_mb(server.pid, "VmRSS")
        client.stdin.close()
    result = json.loads(line)
    others = cores.busy - cpu - result["client_cpu_seconds"]
    result |= {
        "resident_mb": resident,
        "others_percent": max(0.0, 100 * others / cores.total),
        "stolen_percent": 100 * cores.stolen / cores.total,
    }
    if result["answered"]:
        result["lookups_per_second"] = result["lookups"] / result["seconds"]
        result["cpu_us"] = cpu * 1e6 / result["answered"]
        result["client_cpu_us"] = result["client_cpu_seconds"] * 1e6 / result["answered"]
    return result


def failed_run(client: subprocess.Popen) -> dict:
    return {"errors": 1, "first_error": client.communicate()[1].strip() or "the load client ended"}


def write_reverse_keys(server: Server, path: Path, count: int) -> None:
    """Key file of addresses that this server itself has rewritten, with the addresses that they come from."""
    _, host, port = server.addresses["srs_forward"].split(":")
    originals = [f"user{number}@sender{number % 1000}.example" for number in range(count)]
    with (
        socket.create_connection((host, int(port)), timeout=10) as connection,
        connection.makefile("rwb") as stream,
    ):
        lines = []
        for original in originals:
            stream.write(f"get {original}\n".encode())
            stream.flush()
            status, _, rewritten = stream.readline().decode().rstrip("\n").partition(" ")
            if status != "200":
                raise ServerError(f"{server.name} answers {status} {rewritten} to get {original}")
            lines.append(f"{rewritten} {original}\n")
    path.write_text("".join(lines))
