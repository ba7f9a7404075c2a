/* A stand-in for NVIDIA's management library (libnvidia-ml.so.1), so that the real bindings can be run without a card.

   How it behaves stands in the file that FAKE_NVML names, read at every call, so that a test can change it under a running
   program. The first word is the manner, any others are key=value:

     ok             every figure as given by the keys below
     hang           every call waits until the file says something else
     lost           card 0 has fallen off the bus, and stays so until the library is shut down and opened again
     uninitialized  the driver was reloaded: nothing is answered until the library is opened again
     garbage        impossible numbers and text that isn't UTF-8

     gpus=2 total= used= load= temperature= power= (milliwatts) limit= (milliwatts) processes=3
     least= most= (milliwatts) energy= (millijoules) clock= clockmost= memclock= memclockmost= (MHz) slowed= (nvml.h's bits)
     pcie= pciemost= lanes= lanesmost= mig= (1: shared out) parts= (how many)
     mine=               bytes that the asking process itself holds; without it, it isn't among the processes
     gpu1.load=7         a figure of card 1 alone
     nvmlInitWithFlags=9 the call of that name returns this code (nvml.h: 3 not supported, 4 no permission, ...)

   Without the file: ok. Where FAKE_NVML_LOG names a file, every call adds its name to it. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
enum { MOST_GPUS = 16 };

typedef unsigned long long bytes;
typedef struct { int index; } device;
typedef struct { bytes total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned version, sensor; int temperature; } temperature_v1;
typedef struct { unsigned pid; bytes used; unsigned gpu_instance, compute_instance; } process;

static device devices[MOST_GPUS];
static device parts[MOST_GPUS];  /* of a card that is shared out; index: which of them, from 1 */
static int opened, is_lost;

static void read_control(char *text, size_t size) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    size_t length = file ? fread(text, 1, size - 1, file) : 0;
    if (file) fclose(file);
    text[length] = 0;
}

static int manner_is(const char *manner) {
    char text[4096], *rest = NULL;
    read_control(text, sizeof text);
    char *first = strtok_r(text, " \n", &rest);
    return strcmp(first ? first : "ok", manner) == 0;
}

static int find(const char *key, unsigned long long *value) {
    char text[4096], *rest = NULL;
    size_t length = strlen(key);
    read_control(text, sizeof text);
    for (char *word = strtok_r(text, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
        if (strncmp(word, key, length) == 0 && word[length] == '=') {
            *value = strtoull(word + length + 1, NULL, 10);
            return 1;
        }
    return 0;
}

static unsigned long long figure(const device *card, const char *key, unsigned long long otherwise) {
    char own[64];
    unsigned long long value = otherwise;
    if (card) {
        snprintf(own, sizeof own, "gpu%d.%s", card->index, key);
        if (find(own, &value)) return value;
    }
    find(key, &value);
    return value;
}

/* What every call does first: its own return code, or SUCCESS when it may go on. */
static int gate(const char *call, const device *card) {
    const char *log = getenv("FAKE_NVML_LOG");
    FILE *file = log ? fopen(log, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", call);
        fclose(file);
    }
    while (manner_is("hang")) usleep(10000);
    if (manner_is("uninitialized")) opened = 0;
    unsigned long long code;
    if (find(call, &code)) return (int)code;
    if (strncmp(call, "nvmlInit", 8) == 0) return SUCCESS;
    if (!opened) return UNINITIALIZED;
    if (manner_is("lost")) is_lost = 1;
    return is_lost && card && card->index == 0 ? GPU_IS_LOST : SUCCESS;
}

static int put_text(const char *text, char *into, unsigned size) {
    snprintf(into, size, "%s", manner_is("garbage") ? "\xff\xfe\x80" : text);
    return SUCCESS;
}

static int put_number(unsigned *into, unsigned long long value, unsigned nonsense) {
    *into = manner_is("garbage") ? nonsense : (unsigned)value;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int code = gate("nvmlInitWithFlags", NULL);
    if (code == SUCCESS) opened++;
    return code;
}

int nvmlShutdown(void) {
    int code = gate("nvmlShutdown", NULL);
    if (opened > 0) opened--;
    if (opened == 0) is_lost = 0;
    return code;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the fake";
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    int code = gate("nvmlSystemGetDriverVersion", NULL);
    return code ? code : put_text("580.65.06", version, size);
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    int code = gate("nvmlSystemGetCudaDriverVersion", NULL);
    if (code == SUCCESS) *version = manner_is("garbage") ? -1 : 13010;
    return code;
}

int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size) {
    (void)pid;
    int code = gate("nvmlSystemGetProcessName", NULL);
    return code ? code : put_text("/usr/bin/python3", name, size);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    int code = gate("nvmlDeviceGetCount_v2", NULL);
    if (code == SUCCESS) *count = (unsigned)figure(NULL, "gpus", 1);
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **card) {
    if (index >= MOST_GPUS) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *card = &devices[index];
    return gate("nvmlDeviceGetHandleByIndex_v2", NULL);
}

static int is_part(const device *card) { return card >= parts && card < parts + MOST_GPUS; }

int nvmlDeviceGetName(device *card, char *name, unsigned size) {
    int code = gate("nvmlDeviceGetName", card);
    return code ? code : put_text(is_part(card) ? "NVIDIA A100 MIG 1g.5gb" : "NVIDIA GeForce RTX 4090", name, size);
}

int nvmlDeviceGetUUID(device *card, char *uuid, unsigned size) {
    char own[32];
    int code = gate("nvmlDeviceGetUUID", card);
    snprintf(own, sizeof own, "GPU-%08d", card->index);
    return code ? code : put_text(own, uuid, size);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device **card) {
    int code = gate("nvmlDeviceGetHandleByUUID", NULL), index;
    if (code) return code;
    if (sscanf(uuid, "GPU-%d", &index) != 1 || index < 0 || index >= (int)figure(NULL, "gpus", 1)) return NOT_FOUND;
    devices[index].index = index;
    *card = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, device **card) {
    unsigned domain, bus;
    int code = gate("nvmlDeviceGetHandleByPciBusId_v2", NULL);
    if (code) return code;
    if (sscanf(address, "%x:%x:", &domain, &bus) != 2 || bus >= figure(NULL, "gpus", 1)) return NOT_FOUND;
    devices[bus].index = (int)bus;
    *card = &devices[bus];
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(device *card, memory *info) {
    int code = gate("nvmlDeviceGetMemoryInfo", card);
    if (code) return code;
    info->total = is_part(card) ? 5ULL << 30 : figure(card, "total", 24ULL << 30);
    info->used = is_part(card) ? 1ULL << 30 : figure(card, "used", 6ULL << 30);
    info->free = info->total - info->used;
    if (manner_is("garbage")) {
        info->used = (bytes)-5;
        info->free = info->total + 1;
    }
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device *card, utilization *rates) {
    int code = gate("nvmlDeviceGetUtilizationRates", card);
    if (code) return code;
    rates->memory = 0;
    return put_number(&rates->gpu, figure(card, "load", 50), (unsigned)-1);
}

int nvmlDeviceGetTemperature(device *card, unsigned sensor, unsigned *degrees) {
    (void)sensor;
    int code = gate("nvmlDeviceGetTemperature", card);
    return code ? code : put_number(degrees, figure(card, "temperature", 60), (unsigned)-40);
}

int nvmlDeviceGetTemperatureV(device *card, temperature_v1 *reading) {
    int code = gate("nvmlDeviceGetTemperatureV", card);
    if (code == SUCCESS) reading->temperature = manner_is("garbage") ? -40 : (int)figure(card, "temperature", 60);
    return code;
}

int nvmlDeviceGetPowerUsage(device *card, unsigned *milliwatts) {
    int code = gate("nvmlDeviceGetPowerUsage", card);
    return code ? code : put_number(milliwatts, figure(card, "power", 120000), (unsigned)-1);
}

int nvmlDeviceGetEnforcedPowerLimit(device *card, unsigned *milliwatts) {
    int code = gate("nvmlDeviceGetEnforcedPowerLimit", card);
    return code ? code : put_number(milliwatts, figure(card, "limit", 450000), 0);
}

int nvmlDeviceGetPowerManagementLimitConstraints(device *card, unsigned *least, unsigned *most) {
    int code = gate("nvmlDeviceGetPowerManagementLimitConstraints", card);
    if (code) return code;
    put_number(least, figure(card, "least", 150000), (unsigned)-1);
    return put_number(most, figure(card, "most", 600000), 0);
}

int nvmlDeviceGetTotalEnergyConsumption(device *card, bytes *millijoules) {
    int code = gate("nvmlDeviceGetTotalEnergyConsumption", card);
    if (code == SUCCESS) *millijoules = manner_is("garbage") ? (bytes)-1 : figure(card, "energy", 7200000);
    return code;
}

enum { MEMORY_CLOCK = 2 };

int nvmlDeviceGetClockInfo(device *card, unsigned kind, unsigned *megahertz) {
    int code = gate("nvmlDeviceGetClockInfo", card);
    if (code) return code;
    unsigned long long now = kind == MEMORY_CLOCK ? figure(card, "memclock", 10251) : figure(card, "clock", 2520);
    return put_number(megahertz, now, (unsigned)-1);
}

int nvmlDeviceGetMaxClockInfo(device *card, unsigned kind, unsigned *megahertz) {
    int code = gate("nvmlDeviceGetMaxClockInfo", card);
    if (code) return code;
    unsigned long long most = kind == MEMORY_CLOCK ? figure(card, "memclockmost", 10501) : figure(card, "clockmost", 3105);
    return put_number(megahertz, most, (unsigned)-1);
}

static int put_reasons(const char *call, device *card, bytes *reasons) {
    int code = gate(call, card);
    if (code == SUCCESS) *reasons = manner_is("garbage") ? (bytes)-1 : figure(card, "slowed", 0);
    return code;
}

int nvmlDeviceGetCurrentClocksEventReasons(device *card, bytes *reasons) {
    return put_reasons("nvmlDeviceGetCurrentClocksEventReasons", card, reasons);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(device *card, bytes *reasons) {
    return put_reasons("nvmlDeviceGetCurrentClocksThrottleReasons", card, reasons);
}

static int put_link(const char *call, device *card, const char *key, unsigned otherwise, unsigned *into) {
    int code = gate(call, card);
    return code ? code : put_number(into, figure(card, key, otherwise), (unsigned)-1);
}

int nvmlDeviceGetCurrPcieLinkGeneration(device *card, unsigned *generation) {
    return put_link("nvmlDeviceGetCurrPcieLinkGeneration", card, "pcie", 4, generation);
}

int nvmlDeviceGetMaxPcieLinkGeneration(device *card, unsigned *generation) {
    return put_link("nvmlDeviceGetMaxPcieLinkGeneration", card, "pciemost", 4, generation);
}

int nvmlDeviceGetCurrPcieLinkWidth(device *card, unsigned *lanes) {
    return put_link("nvmlDeviceGetCurrPcieLinkWidth", card, "lanes", 16, lanes);
}

int nvmlDeviceGetMaxPcieLinkWidth(device *card, unsigned *lanes) {
    return put_link("nvmlDeviceGetMaxPcieLinkWidth", card, "lanesmost", 16, lanes);
}

int nvmlDeviceGetMigMode(device *card, unsigned *now, unsigned *next) {
    enum { NO_MIG = 99 };
    unsigned long long mode = figure(card, "mig", NO_MIG);
    int code = gate("nvmlDeviceGetMigMode", card);
    if (code) return code;
    if (mode == NO_MIG) return NOT_SUPPORTED;
    *next = (unsigned)mode;
    return put_number(now, mode, 77);
}

int nvmlDeviceGetMaxMigDeviceCount(device *card, unsigned *count) {
    int code = gate("nvmlDeviceGetMaxMigDeviceCount", card);
    return code ? code : put_number(count, 7, (unsigned)-1);
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *card, unsigned index, device **part) {
    int code = gate("nvmlDeviceGetMigDeviceHandleByIndex", card);
    if (code) return code;
    if (index >= figure(card, "parts", 0)) return NOT_FOUND;
    parts[index].index = 1 + (int)index;
    *part = &parts[index];
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *card, unsigned *count, process *list) {
    int code = gate("nvmlDeviceGetComputeRunningProcesses_v3", card);
    if (code) return code;
    bytes mine = figure(card, "mine", 0);
    unsigned others = (unsigned)figure(card, "processes", 0), found = others + (mine > 0), room = *count;
    *count = found;
    if (found == 0) return SUCCESS;
    if (room < found) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < others; i++)
        list[i] = (process){.pid = 4000 + i, .used = (bytes)(i + 1) << 30};
    if (mine > 0) list[others] = (process){.pid = (unsigned)getpid(), .used = mine};
    if (manner_is("garbage")) {
        list[0].used = 1ULL << 62;
        *count = room + 1000;
    }
    return SUCCESS;
}

/* Drawing: the first of the computing processes once more, and one that only draws; their memory isn't known. */
int nvmlDeviceGetGraphicsRunningProcesses_v3(device *card, unsigned *count, process *list) {
    int code = gate("nvmlDeviceGetGraphicsRunningProcesses_v3", card);
    if (code) return code;
    unsigned found = figure(card, "processes", 0) ? 2 : 0, room = *count;
    *count = found;
    if (found == 0) return SUCCESS;
    if (room < found) return INSUFFICIENT_SIZE;
    list[0] = (process){.pid = 4000, .used = (bytes)-1};
    list[1] = (process){.pid = 900, .used = (bytes)-1};
    return SUCCESS;
}
