#include "operations.hpp"
