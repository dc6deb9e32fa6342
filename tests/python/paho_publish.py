"""Publishes each line of standard input with paho-mqtt over TLS and waits until all are acknowledged.

Prints `published N`. Ends with 1 and the server's reason on standard error when it is refused.
With --reconnect it comes back after every lost connection, as a device does, and keeps what was not
acknowledged.
"""

import argparse
import ssl
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE_S = 60
# PUBCOMP to a PUBREL that the server no longer knows. It is the answer to a client that takes up an exchange again which
# the server has forgotten, and "is not an error during recovery" (MQTT 5, 3.7.2.1): its PUBREC had come before.
PACKET_IDENTIFIER_NOT_FOUND = 0x92
SESSION_S = 3600


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("--port", "--ca", "--client-id", "--version", "--qos", "--topic"):
        parser.add_argument(name, required=True)
    for name in ("--certificate", "--key", "--password"):
        parser.add_argument(name)
    parser.add_argument("--reconnect", action="store_true")
    return parser.parse_args()


def main():
    given = arguments()
    v5 = given.version == "5"
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=given.client_id,
        protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
        clean_session=None if v5 else False,
        reconnect_on_failure=given.reconnect,
    )
    client.tls_set(given.ca, given.certificate, given.key, tls_version=ssl.PROTOCOL_TLS_CLIENT)
    client.reconnect_delay_set(1, 1)
    if given.password:
        client.username_pw_set(given.client_id, given.password)
    refused = []
    over = threading.Event()

    def end(reason):
        if not given.reconnect:
            refused.append(str(reason))
            over.set()

    def on_connect(_client, _data, _flags, reason, _properties):
        if reason.is_failure:
            end(reason)

    def on_disconnect(_client, _data, _flags, reason, _properties):
        end(reason)

    client.on_connect = on_connect
    client.on_disconnect = on_disconnect
    lines = [line.strip() for line in sys.stdin if line.strip()]
    left = set(range(len(lines)))
    known = {}
    lock = threading.Lock()

    def on_publish(_client, _data, message, reason, _properties):
        recovered = given.reconnect and given.qos == "2" and reason.value == PACKET_IDENTIFIER_NOT_FOUND
        if reason.is_failure and not recovered:
            refused.append(f"publish: {reason}")
            over.set()
        with lock:
            left.discard(known.get(message))
            if not left and len(known) == len(lines):
                over.set()

    client.on_publish = on_publish
    session = None
    if v5:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = SESSION_S
    clean_start = False if v5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY
    # The first connection is made by the loop, which tries again where that was asked for.
    client.connect_async("localhost", int(given.port), keepalive=10, clean_start=clean_start, properties=session)
    with lock:
        for number, line in enumerate(lines):
            known[client.publish(given.topic, line, int(given.qos)).mid] = number
    client.loop_start()
    in_time = over.wait(DEADLINE_S)
    with lock:
        missing = len(left)
    given.reconnect = False
    if missing:
        print(refused[0] if refused else f"in time: {in_time}, not acknowledged: {missing}", file=sys.stderr)
        sys.exit(1)
    client.disconnect()
    client.loop_stop()
    print(f"published {len(lines)}")


main()
