// How far the residuals of a class of n samples are taken from the centre of all classes instead of the class mean:
// s^2 = 1 / 2 at one sample, hardly at many. A class of one sample shows no scatter; its distance from the centre stands
// in for half of it.
#pragma once

#include "simt.cuh"

DEVICE double pulled(double n, double pull) { return sqrt(pull / (n - 1 + 2 * pull)); }
